#!/bin/sh
# The daemon is killed while a layer is mounted. The next daemon calls get and put, which leaves the
# layer mounted, applies an archive to it, and gets it again. Needs root and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
mkdir -p "$top/tree/etc"
echo old > "$top/tree/etc/version"
tar -C "$top/tree" -cf "$top/old.tar" etc
echo new > "$top/tree/etc/version"
tar -C "$top/tree" -cf "$top/new.tar" etc
gd overlay2 "$home" create base -- apply base < "$top/old.tar"
gd overlay2 "$home" create c base -- get c > /dev/null
view=$(gd overlay2 "$home" get c -- put c)
cat "$view/etc/version" > "$top/log" 2>&1 || true # unmounted: right
gd overlay2 "$home" apply c base < "$top/new.tar"
view=$(gd overlay2 "$home" get c)
shown=$(cat "$view/etc/version")
echo "expected: get shows the new file"
if [ "$shown" = new ]; then
    echo "actual:   get shows the new file"
else
    umount "$view"
    view=$(gd overlay2 "$home" get c)
    echo "actual:   get shows the $shown file; unmounted and mounted again, the $(cat "$view/etc/version") one"
fi
