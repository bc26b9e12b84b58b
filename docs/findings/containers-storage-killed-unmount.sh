#!/bin/sh
# unmount is killed before it has written its record; then the layer is mounted again.
# Needs root, containers-storage and strace.
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i a > /dev/null
cs create-layer -i b a > /dev/null
cs mount b > /dev/null
strace -f -o "$top/trace" -P "$top/run/overlay-layers/mountpoints.json" \
    -e inject=renameat,renameat2,rename:signal=KILL:when=1 \
    containers-storage -g "$top/graph" -R "$top/run" -s overlay unmount b > "$top/log" 2>&1 || true
echo "expected: mounted"
if view=$(cs mount b 2> "$top/log") && grep -q " $view " /proc/self/mounts; then
    echo "actual:   mounted"
else
    echo "actual:   $(tail -n 1 "$top/log" | sed "s,$top/,,g")"
fi
