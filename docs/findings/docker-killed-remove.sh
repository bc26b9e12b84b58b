#!/bin/sh
# Remove of a layer with two files is killed before it deletes the second. After the restart: which
# layer is there? Needs root, strace and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
view=$(gd overlay2 "$home" create layer -- get layer)
echo data > "$view/one"
echo data > "$view/two"
strace -f -o "$top/trace" -P "$home/layer/diff" -e inject=unlinkat:signal=KILL:when=2 \
    gd overlay2 "$home" remove layer > "$top/log" 2>&1 || true
echo "expected: no layer, or both files"
if [ "$(gd overlay2 "$home" exists layer)" = false ]; then
    echo "actual:   no layer, or both files"
elif ! view=$(gd overlay2 "$home" get layer 2> "$top/log"); then
    echo "actual:   no layer, or both files"
elif [ "$(ls "$view" | wc -l)" = 2 ]; then
    echo "actual:   no layer, or both files"
else
    echo "actual:   exists is true, and get shows $(ls "$view" | wc -l) of 2 files without an error"
fi
