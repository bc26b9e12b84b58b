#!/bin/sh
# The power fails after Create and ApplyDiff of a layer have returned, and after the caller has
# synced its own record. Needs root, gd (gd.go), mkfs.ext4 and xfs_io (xfsprogs).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/disk/home
truncate -s 512M "$top/image"
mkfs.ext4 -q "$top/image"
mkdir "$top/disk" "$top/files"
mount -o loop "$top/image" "$top/disk"
echo data > "$top/files/file"
tar -C "$top/files" -cf "$top/layer.tar" file
gd overlay2 "$home" exists a > "$top/log"
sync
gd overlay2 "$home" create a -- apply a < "$top/layer.tar"
echo a > "$top/disk/record"
xfs_io -c fsync "$top/disk/record"
xfs_io -x -c 'shutdown' "$top/disk"
umount "$home" 2> /dev/null || true
umount "$top/disk"
mount -o loop "$top/image" "$top/disk"
echo "expected: the layer exists and contains the file"
if [ "$(gd overlay2 "$home" exists a)" = false ]; then
    echo "actual:   the layer does not exist"
elif [ "$(cat "$(gd overlay2 "$home" get a)/file")" != data ]; then
    echo "actual:   the layer exists, and its file has $(stat -c %s "$home/a/diff/file") bytes"
else
    echo "actual:   the layer exists and contains the file"
fi
