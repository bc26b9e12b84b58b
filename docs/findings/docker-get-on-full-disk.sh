#!/bin/sh
# A layer that was never mounted is mounted on a disk with one free inode: `merged` needs it. An archive
# that the same daemon applies to another layer fills the disk, because Init itself needs free inodes.
# Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
mkdir "$top/disk" "$top/files"
mount -t tmpfs -o nr_inodes=100 tmpfs "$top/disk"
home=$top/disk/home
gd overlay2 "$home" create base -- create child base -- create other > "$top/log"
free=$(($(df --output=iavail "$top/disk" | tail -n 1) - 1))
(cd "$top/files" && seq "$free" | xargs touch)
echo "expected: get succeeds, or reports: no space left on device"
if tar -C "$top/files" -c $(ls "$top/files") |
    gd overlay2 "$home" apply other -- get child > "$top/log" 2>&1 ||
    tail -n 1 "$top/log" | grep -q 'no space left'; then
    echo "actual:   get succeeds, or reports: no space left on device"
else
    echo "actual:   get reports: $(tail -n 1 "$top/log" | sed "s,^get: ,,; s,$home/,,")"
fi
