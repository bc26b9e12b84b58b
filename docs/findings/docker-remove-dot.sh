#!/bin/sh
# Remove of the id ".": is it refused, and do the layers still exist?
# Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
echo data > "$(gd overlay2 "$home" create a -- get a)/file"
gd overlay2 "$home" remove . > "$top/log" 2>&1 || true
echo "expected: data"
echo "actual:   $(cat "$home/a/diff/file" 2>&1 | sed "s,$top/,,")"
