#!/bin/sh
# An image layer that deletes and recreates a directory, with .wh.d before d/.
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
mkdir -p "$top/one/d" "$top/two/d"
touch "$top/one/d/old" "$top/two/.wh.d" "$top/two/d/new"
tar -C "$top/one" -cf "$top/one.tar" d
tar -C "$top/two" -cf "$top/two.tar" .wh.d d
cs import-layer -i base -f "$top/one.tar" > /dev/null
cs import-layer -i layer -f "$top/two.tar" base > /dev/null
view=$(cs mount layer)
echo "expected: new"
echo "actual:   $(ls "$view/d" | tr '\n' ' ' | sed 's/ $//')"
