#!/bin/sh
# Put of a mounted layer, while umount2(2) fails with EBUSY. Needs root, strace and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
gd overlay2 "$home" create base -- create layer base
status=0
strace -f -o "$top/trace" -P "$home/layer/merged" -e inject=umount2:error=EBUSY \
    gd overlay2 "$home" get layer -- put layer > "$top/log" 2>&1 || status=$?
echo "expected: put fails, or the layer is unmounted"
if [ "$status" != 0 ] || ! grep -q " $home/layer/merged " /proc/self/mounts; then
    echo "actual:   put fails, or the layer is unmounted"
else
    echo "actual:   put succeeds, and the layer is still mounted"
fi
