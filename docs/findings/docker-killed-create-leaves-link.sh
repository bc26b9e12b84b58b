#!/bin/sh
# Create of a layer is killed when it writes the file `link`; the layer is removed after the restart.
# Is its link left in the directory l?
# Needs root, strace and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
gd overlay2 "$home" exists layer > "$top/log"
strace -f -o "$top/trace" -P "$home/layer/link" -e trace=openat,renameat \
    -e inject=openat,renameat:signal=KILL:when=1 \
    gd overlay2 "$home" create layer > "$top/log" 2>&1 || true
gd overlay2 "$home" remove layer > "$top/log" 2>&1
echo "expected: 0 links"
echo "actual:   $(ls "$home/l" | wc -l) links"
