#!/bin/sh
# ApplyDiff is killed when it has unpacked one of two members. Then the layer is mounted.
# Needs root, strace and gd (gd.go). Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
mkdir "$top/files"
echo data > "$top/files/one"
ln -s one "$top/files/two"
tar -C "$top/files" -cf "$top/layer.tar" one two
gd overlay2 "$home" create a
strace -f -o "$top/trace" -e trace=symlinkat -e inject=symlinkat:signal=KILL:when=1 \
    gd overlay2 "$home" apply a < "$top/layer.tar" > "$top/log" 2>&1 || true
echo "expected: no layer, both members or none, or an error"
if [ "$(gd overlay2 "$home" exists a)" = false ] || ! view=$(gd overlay2 "$home" get a 2> "$top/log"); then
    echo "actual:   no layer, both members or none, or an error"
elif count=$(ls "$view" | wc -l) && [ "$count" != 1 ]; then
    echo "actual:   no layer, both members or none, or an error"
else
    echo "actual:   get shows $count of 2 members"
fi
