#!/bin/sh
# A layer id of "..": is it refused, and do the other layers still exist?
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i a > /dev/null
echo data > "$(cs mount a)/file"
cs unmount a > /dev/null
cs create-layer -i .. > "$top/log" 2>&1 || true
echo "expected: data"
echo "actual:   $(cat "$top/graph/overlay/a/diff/file" 2>&1 | sed "s,$top/,,")"
