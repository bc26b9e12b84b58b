#!/bin/sh
# A layer contains a file whose path is longer than PATH_MAX (4096 bytes); is it in the layer's diff?
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
name=$(printf '%0200d' 0)
cs create-layer -i base > /dev/null
cs create-layer -i layer base > /dev/null
cd "$(cs mount layer)"
for depth in $(seq 25); do
    mkdir "$name"
    cd -P "$name" 2> /dev/null
done
echo content > file
cd /
cs unmount layer > /dev/null
status=0
cs diff --uncompressed layer > "$top/layer.tar" 2> "$top/log" || status=$?
echo "expected: exit code 0, and the file is in the archive"
if grep -q content "$top/layer.tar"; then
    echo "actual:   exit code $status, and the file is in the archive"
else
    echo "actual:   exit code $status, and the file is not in the archive"
fi
