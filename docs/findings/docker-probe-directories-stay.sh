#!/bin/sh
# The daemon is killed while it starts, and started again. Needs root, strace and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
gd overlay2 "$home" exists a > "$top/log"
strace -f -o "$top/trace" -e trace=mount -e inject=mount:signal=KILL:when=1 \
    gd overlay2 "$home" exists a > "$top/log" 2>&1 || true
gd overlay2 "$home" exists a > "$top/log"
left=$(find "$home" -maxdepth 1 -name '*[0-9]' | sed 's,.*/,,; s/[0-9]*$/NUMBER/')
echo "expected: no temporary directory"
echo "actual:   ${left:-no temporary directory}"
