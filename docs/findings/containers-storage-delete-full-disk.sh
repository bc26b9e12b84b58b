#!/bin/sh
# The file system of the graph root is full; a layer with a file of 1 MiB is deleted to make room.
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
mkdir "$top/disk"
mount -t tmpfs -o size=2m none "$top/disk"
cs() { containers-storage -g "$top/disk/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i a > /dev/null
view=$(cs mount a)
head -c 1048576 /dev/zero > "$view/file"
cs unmount a > /dev/null
cat /dev/zero > "$top/disk/filler" 2> /dev/null || true
echo "expected: the layer is deleted"
if cs delete-layer a > "$top/log" 2>&1 && [ ! -e "$top/disk/graph/overlay/a" ]; then
    echo "actual:   the layer is deleted"
else
    echo "actual:   $(sed -n '$s,open [^ ]*/,open ,;$s/json[0-9]*/json/;$p' "$top/log")"
fi
umount -l "$top/disk/graph/overlay" 2> /dev/null || true
umount -l "$top/disk"
