#!/bin/sh
# Create of an id that is in use, with a parent that does not exist, fails. Does the layer still exist?
# Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
echo data > "$(gd overlay2 "$home" create a -- get a)/file"
gd overlay2 "$home" create a nope > "$top/log" 2>&1 || true
echo "expected: data"
echo "actual:   $(cat "$home/a/diff/file" 2>&1 | sed "s,$top/,,")"
