#!/bin/sh
# applydiff is killed when it has unpacked one of two files. Then the layer is mounted.
# Needs root, containers-storage and strace.
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
mkdir "$top/files"
echo data > "$top/files/one"
echo data > "$top/files/two"
tar -C "$top/files" -cf "$top/layer.tar" one two
cs create-layer -i a > /dev/null
strace -f -o "$top/trace" -e trace=openat -P /two \
    -e inject=openat:signal=KILL:when=1 \
    containers-storage -g "$top/graph" -R "$top/run" -s overlay applydiff a \
    < "$top/layer.tar" > "$top/log" 2>&1 || true
echo "expected: no layer, both files or none, or an error"
if ! cs exists -l a > /dev/null 2>&1 || ! view=$(cs mount a 2> "$top/log"); then
    echo "actual:   no layer, both files or none, or an error"
elif count=$(ls -A "$view" | wc -l) && [ "$count" != 1 ]; then
    echo "actual:   no layer, both files or none, or an error"
else
    echo "actual:   the layer is mounted, and shows $count of 2 files"
fi
