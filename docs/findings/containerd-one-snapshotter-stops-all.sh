#!/bin/sh
# The blockfile snapshotter is configured with a file that does not exist; overlayfs is to be used.
# Needs root, containerd and ctr. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cat > "$top/config.toml" << END
version = 2
root = "$top/root"
state = "$top/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$top/sock"
[ttrpc]
  address = "$top/ttrpc"
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "$top/blockfile"
  scratch_file = "$top/missing"
END
containerd -c "$top/config.toml" > "$top/log" 2>&1 &
trap 'kill $!' EXIT
until [ -S "$top/sock" ] || ! kill -0 $!; do sleep 0.2; done
echo "expected: overlayfs works"
if ctr -a "$top/sock" snapshots --snapshotter overlayfs prepare a > "$top/said" 2>&1; then
    echo "actual:   overlayfs works"
else
    echo "actual:   $(tail -n 1 "$top/said")"
fi
