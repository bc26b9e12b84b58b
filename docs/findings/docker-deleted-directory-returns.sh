#!/bin/sh
# An image layer that deletes and recreates a directory, with .wh.d before d/.
# Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
mkdir -p "$top/one/d" "$top/two/d"
touch "$top/one/d/old" "$top/two/.wh.d" "$top/two/d/new"
tar -C "$top/one" -cf "$top/one.tar" d
tar -C "$top/two" -cf "$top/two.tar" .wh.d d
gd overlay2 "$home" create base -- apply base < "$top/one.tar"
gd overlay2 "$home" create layer base -- apply layer base < "$top/two.tar"
echo "expected: new"
echo "actual:   $(ls "$(gd overlay2 "$home" get layer)/d" | tr '\n' ' ' | sed 's/ $//')"
