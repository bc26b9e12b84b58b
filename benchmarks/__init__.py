"""How fast the reference drivers are, beside Docker, containerd, containers-storage and tar.

    python -m benchmarks --json docs/performance.json --page docs/performance.md

prints the table of aims, and writes the page from the result file. Everything happens on ext4 in a
loop image on tmpfs, in a mount namespace of its own, with a warm page cache. Only ratios within one
run mean anything: the machine's speed drifts, so contestants take part in rotated order, and a run
on a machine that was too uneven says so. Docker's overlay2 and containerd's archive package are
programs of go/, which time their verbs inside; they are built where Debian's packages with their
sources and Go are installed (docs/performance.md). `--small --rounds 2 --only GROUP` tries a group.
"""
