#!/bin/sh
# An image layer whose directory entry has the attribute trusted.overlay.opaque.
# Needs root, gd (gd.go), GNU tar and setfattr (attr).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
mkdir -p "$top/one/d" "$top/two/d"
touch "$top/one/d/file"
setfattr -n trusted.overlay.opaque -v y "$top/two/d"
tar -C "$top/one" -cf "$top/one.tar" d
tar -C "$top/two" --xattrs --xattrs-include='*' -cf "$top/two.tar" d
gd overlay2 "$home" create base -- apply base < "$top/one.tar"
gd overlay2 "$home" create layer base -- apply layer base < "$top/two.tar"
echo "expected: file"
echo "actual:   $(ls "$(gd overlay2 "$home" get layer)/d")"
