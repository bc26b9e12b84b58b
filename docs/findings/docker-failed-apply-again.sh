#!/bin/sh
# ApplyDiff of an archive with a whiteout fails on a full disk. Then there is space, and it is called
# again. Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/disk/home
mkdir "$top/disk" "$top/files"
mount -t tmpfs -o size=1m tmpfs "$top/disk"
touch "$top/files/.wh.removed"
truncate -s 4M "$top/files/large"
tar -C "$top/files" -cf "$top/layer.tar" .wh.removed large
gd overlay2 "$home" create base -- create a base
if gd overlay2 "$home" apply a base < "$top/layer.tar" > "$top/log" 2>&1; then
    echo "the disk is not full"
    exit 1
fi
mount -o remount,size=64m "$top/disk"
echo "expected: the second call succeeds"
if gd overlay2 "$home" apply a base < "$top/layer.tar" > "$top/log" 2>&1; then
    echo "actual:   the second call succeeds"
else
    echo "actual:   the second call fails: $(tail -n 1 "$top/log" | sed 's/.*: //')"
fi
