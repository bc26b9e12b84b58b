#!/bin/sh
# The power fails right after create-layer has returned. The file system is one whose journal is
# committed while the data of new files is not yet written, as is possible on ext4 (data=ordered does
# not cover delayed allocation). Needs root, containers-storage, mkfs.ext4 and xfs_io (xfsprogs).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/disk/graph" -R "$top/run" -s overlay "$@"; }
truncate -s 64M "$top/image"
mkfs.ext4 -q "$top/image"
mkdir "$top/disk"
mount -o loop "$top/image" "$top/disk"
cs create-layer -i base > /dev/null
sync
cs create-layer -i child base > /dev/null
xfs_io -x -c 'shutdown -f' "$top/disk"
umount "$top/disk/graph/overlay" 2> /dev/null || true
umount "$top/disk"
mount -o loop "$top/image" "$top/disk"
echo "expected: an existing layer can be mounted"
if ! cs exists -l child > /dev/null 2>&1; then
    echo "actual:   an existing layer can be mounted"
elif cs mount child > "$top/log" 2>&1; then
    echo "actual:   an existing layer can be mounted"
else
    size=$(stat -c %s "$top/disk/graph/overlay/child/link")
    echo "actual:   the layer exists, its file link has $size bytes, and mount fails"
fi
