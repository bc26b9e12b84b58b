#!/bin/sh
# mount is killed while it writes mountpoints.json. Then all layers are unmounted and the store is
# used again. Needs root, containers-storage and strace.
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i base > /dev/null
cs create-layer -i a base > /dev/null
strace -f -o "$top/trace" -e trace=rename,renameat,renameat2 \
    -e inject=rename,renameat,renameat2:signal=KILL:when=1 \
    containers-storage -g "$top/graph" -R "$top/run" -s overlay mount a > "$top/log" 2>&1 || true
cs unmount a > "$top/log" 2>&1 || true
cs mount a > "$top/log" 2>&1 || true
cs unmount a > "$top/log" 2>&1 || true
left=$(find "$top/run" "$top/graph" -name '.tmp-*' | sed 's,.*/,,; s/[0-9]*$/NUMBER/' | sort -u)
echo "expected: no temporary file"
echo "actual:   ${left:-no temporary file}"
