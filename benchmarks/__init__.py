"""Speed of the reference drivers compared with Docker, containerd, containers-storage and tar.

    python -m benchmarks --json docs/performance.json --page docs/performance.md

This command prints the table of aims, and writes the page from the result file. All measurements
use ext4 in a loop image on tmpfs, in a private mount namespace, with a warm page cache. Only ratios
within one run are meaningful: the speed of the machine drifts, so candidates run in rotated order,
and the result of a run on a machine with uneven speed contains a warning. Docker's overlay2 and
containerd's archive package are called by programs of go/, which measure the time of each verb;
they are built if Debian's packages with their sources and Go are installed (docs/performance.md).
`--small --rounds 2 --only GROUP` tests a group.
"""
