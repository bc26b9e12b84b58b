#!/bin/sh
# A layer has a directory in the place of a symlink that points to itself; is it in the layer's diff?
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i base > /dev/null
ln -s loop "$(cs mount base)/loop"
cs unmount base > /dev/null
cs create-layer -i layer base > /dev/null
view=$(cs mount layer)
rm "$view/loop"
mkdir "$view/loop"
touch "$view/loop/file"
cs unmount layer > /dev/null
status=0
cs diff --uncompressed layer > "$top/layer.tar" 2> "$top/log" || status=$?
echo "expected: exit code 0: loop/ loop/file"
echo "actual:   exit code $status: $(tar -tf "$top/layer.tar" | tr '\n' ' ' | sed 's/ $//')"
