#!/bin/sh
# An image layer holds d/sub/file without an entry for d, which has mode 1777 in the layer below.
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
mkdir -p "$top/one/d" "$top/two/d/sub"
chmod 1777 "$top/one/d"
touch "$top/two/d/sub/file"
tar -C "$top/one" -cf "$top/one.tar" d
tar -C "$top/two" -cf "$top/two.tar" d/sub/file
cs import-layer -i base -f "$top/one.tar" > /dev/null
cs import-layer -i layer -f "$top/two.tar" base > /dev/null
echo "expected: 1777"
echo "actual:   $(stat -c %a "$(cs mount layer)/d")"
