#!/bin/sh
# A directory with a file is replaced by a block device; can the diff of the layer be applied?
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s vfs "$@"; }
cs create-layer -i base > /dev/null
view=$(cs mount base)
mkdir "$view/d"
touch "$view/d/file"
cs unmount base > /dev/null
cs create-layer -i layer base > /dev/null
view=$(cs mount layer)
rm -r "$view/d"
mknod "$view/d" b 259 7
cs unmount layer > /dev/null
cs diff --uncompressed layer > "$top/layer.tar"
cs create-layer -i sibling base > /dev/null
status=0
cs applydiff -f "$top/layer.tar" sibling > /dev/null 2>&1 || status=$?
echo "expected: diff: d; applydiff: 0"
echo "actual:   diff: $(tar -tf "$top/layer.tar" | tr '\n' ' ' | sed 's/ $//'); applydiff: $status"
