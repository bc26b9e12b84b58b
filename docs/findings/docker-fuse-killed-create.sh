#!/bin/sh
# Create of a layer on `base` is killed before it writes to the file `lower`. Which files does the
# layer show after the restart?
# Needs root, strace, fuse-overlayfs and gd (gd.go). Run in a mount namespace of its own:
# unshare --mount sh FILE. A listing of the view does not end: it is not done here.
set -eu
top=$(mktemp -d)
home=$top/home
gd fuse-overlayfs "$home" create base > "$top/log"
strace -f -o "$top/trace" -P "$home/child/lower" -e trace=write -e inject=write:signal=KILL:when=1 \
    gd fuse-overlayfs "$home" create child base > "$top/log" 2>&1 || true
echo "expected: no layer, or the files of its parent"
if [ "$(gd fuse-overlayfs "$home" exists child)" = false ]; then
    echo "actual:   no layer, or the files of its parent"
elif ! view=$(gd fuse-overlayfs "$home" get child 2> "$top/log"); then
    echo "actual:   no layer, or the files of its parent"
elif [ -d "$view/base/diff" ]; then
    echo "actual:   get returns ${view#"$top"/}, which shows the home of the driver: base/diff"
else
    echo "actual:   get returns ${view#"$top"/}, which does not show base/diff"
fi
