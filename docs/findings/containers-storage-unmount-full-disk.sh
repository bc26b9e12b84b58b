#!/bin/sh
# A layer is mounted, the disk fills up (here: its inodes), the layer is to be unmounted.
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
mkdir "$top/disk"
mount -t tmpfs -o nr_inodes=200 tmpfs "$top/disk"
cs() { containers-storage -g "$top/disk/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i a > /dev/null
cs create-layer -i b a > /dev/null
cs mount b > /dev/null
for number in $(seq 200); do
    touch "$top/disk/$number" 2> /dev/null || break
done
echo "expected: unmounted"
if cs unmount b > "$top/log" 2>&1; then
    echo "actual:   unmounted"
else
    echo "actual:   $(sed "s,$top/,,;s,^Error: ,," "$top/log" | tail -n 1)"
fi
