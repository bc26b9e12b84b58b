#!/bin/sh
# Create of a layer on `base` is killed half-way. Which layer exists after the restart?
# Needs root, strace and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
echo data > "$(gd overlay2 "$home" create base -- get base)/file"
strace -f -o "$top/trace" -e trace=symlinkat -e inject=symlinkat:signal=KILL:when=1 \
    gd overlay2 "$home" create child base > "$top/log" 2>&1 || true
echo "expected: no layer, or the files of its parent"
if [ "$(gd overlay2 "$home" exists child)" = false ]; then
    echo "actual:   no layer, or the files of its parent"
elif ! view=$(gd overlay2 "$home" get child 2> "$top/log"); then
    echo "actual:   no layer, or the files of its parent"
elif [ -e "$view/file" ]; then
    echo "actual:   no layer, or the files of its parent"
else
    echo "actual:   exists is true, get returns ${view#"$top"/}, which contains $(ls "$view" | wc -l) files"
fi
