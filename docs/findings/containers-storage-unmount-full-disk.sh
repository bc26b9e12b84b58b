#!/bin/sh
# A layer is mounted, the disk fills up, the layer is to be unmounted.
# Needs root, containers-storage and mkfs.ext4. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
mkdir "$top/disk"
truncate -s 16M "$top/image"
mkfs.ext4 -q "$top/image"
mount -o loop "$top/image" "$top/disk"
cs() { containers-storage -g "$top/disk/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i a > /dev/null
cs create-layer -i b a > /dev/null
cs mount b > /dev/null
dd if=/dev/zero of="$top/disk/fill" bs=4k 2> /dev/null || true
echo "expected: unmounted"
if cs unmount b > "$top/log" 2>&1; then
    echo "actual:   unmounted"
else
    echo "actual:   $(sed "s,$top/,,;s,^Error: ,," "$top/log" | tail -n 1)"
fi
