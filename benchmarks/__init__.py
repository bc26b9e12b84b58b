"""How fast the reference drivers are, side by side with GNU tar, containers-storage and tarfile.

    python -m benchmarks [--runs 7] [--only diff] [--json FILE] [--chart FILE.svg]

Everything happens on ext4 in a loop image on tmpfs, in a mount namespace of its own, page cache
warm. Only ratios within one run mean anything: the machine's speed drifts, so contestants take
turns. Needs root, mkfs.ext4 and GNU tar; containers-storage takes part where it is installed.
"""
