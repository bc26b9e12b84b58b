#!/bin/sh
# A host directory is bind-mounted into a layer of the vfs driver; then the layer is deleted.
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s vfs "$@"; }
mkdir "$top/host"
echo data > "$top/host/file"
cs create-layer -i a > /dev/null
mkdir "$top/graph/vfs/dir/a/mnt"
mount --bind "$top/host" "$top/graph/vfs/dir/a/mnt"
cs delete-layer a > "$top/log" 2>&1 || true
echo "expected: data"
echo "actual:   $(cat "$top/host/file" 2>&1)"
