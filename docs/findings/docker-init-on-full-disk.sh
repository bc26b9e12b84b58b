#!/bin/sh
# The daemon is started on a full disk (here: no free inode). Needs root and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
mkdir "$top/disk"
mount -t tmpfs -o nr_inodes=20 tmpfs "$top/disk"
gd overlay2 "$top/disk/home" exists a > "$top/log"
for number in $(seq 20); do
    touch "$top/disk/$number" 2> /dev/null || break
done
echo "expected: init succeeds, or reports: no space left on device"
if gd overlay2 "$top/disk/home" exists a > "$top/log" 2>&1 || tail -n 1 "$top/log" | grep -q 'no space left'; then
    echo "actual:   init succeeds, or reports: no space left on device"
else
    echo "actual:   init reports: $(tail -n 1 "$top/log" | sed 's/^init: //')"
fi
