#!/bin/sh
# applydiff of an archive with a whiteout fails on a full disk. Then there is space, and it is called
# again. Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
mkdir "$top/disk" "$top/files"
mount -t tmpfs -o size=1m tmpfs "$top/disk"
cs() { containers-storage -g "$top/disk/graph" -R "$top/run" -s overlay "$@"; }
touch "$top/files/.wh.removed"
truncate -s 4M "$top/files/large"
tar -C "$top/files" -cf "$top/layer.tar" .wh.removed large
cs create-layer -i base > /dev/null
cs create-layer -i a base > /dev/null
if cs applydiff a < "$top/layer.tar" > "$top/log" 2>&1; then
    echo "the disk is not full"
    exit 1
fi
mount -o remount,size=64m "$top/disk"
echo "expected: the layer is as before, and the second call succeeds"
left=$(ls -A "$top/disk/graph/overlay/a/diff" | sed 's/root[0-9]*/rootNUMBER/' | tr '\n' ' ')
if cs applydiff a < "$top/layer.tar" > "$top/log" 2>&1; then
    result="the second call succeeds"
else
    result="the second call fails: $(grep -o 'file exists' "$top/log" | head -n 1)"
fi
if [ -z "$left" ] && [ "$result" = "the second call succeeds" ]; then
    echo "actual:   the layer is as before, and the second call succeeds"
else
    echo "actual:   the layer contains: ${left:-nothing }; $result" | sed 's/ ;/;/'
fi
