#!/bin/sh
# A layer has lib -> ../usr/lib, which the kernel resolves to /usr/lib; the next one has lib/x.
# Needs root and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
root=$(gd vfs "$home" create base -- get base)
mkdir -p "$root/usr/lib" "$top/two/lib"
ln -s ../usr/lib "$root/lib"
touch "$top/two/lib/x"
tar -C "$top/two" -cf "$top/two.tar" lib/x
echo "expected: usr/lib/x"
if gd vfs "$home" create layer base -- apply layer base < "$top/two.tar" 2> "$top/log"; then
    root=$(gd vfs "$home" get layer)
    echo "actual:   $(cd "$root" && find usr lib -name x)"
else
    echo "actual:   $(tail -n 1 "$top/log" | sed "s,$top/,,g")"
fi
