#!/bin/sh
# A view of a committed snapshot that has no parent. Needs root, containerd, ctr and
# containerd-nydus-grpc. Run in a mount namespace of its own: unshare --mount sh FILE
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
[proxy_plugins.nydus]
  type = "snapshot"
  address = "$top/nydus.sock"
END
echo '{"device": {"backend": {"type": "registry", "config": {"scheme": "https"}}}}' > "$top/nydusd.json"
containerd-nydus-grpc --address "$top/nydus.sock" --root "$top/nydus" --daemon-mode none \
    --nydusd /bin/true --nydusd-config "$top/nydusd.json" > "$top/nydus.log" 2>&1 &
nydus=$!
until [ -S "$top/nydus.sock" ] || ! kill -0 $nydus; do sleep 0.2; done
containerd -c "$top/config.toml" > "$top/log" 2>&1 &
trap 'kill $nydus $!' EXIT
snapshots() { ctr -a "$top/sock" snapshots --snapshotter nydus "$@"; }
until snapshots ls > /dev/null 2>&1 || ! kill -0 $!; do sleep 0.2; done
mkdir "$top/layer" "$top/view"
snapshots prepare a > /dev/null
eval "$(snapshots mounts "$top/layer" a)"
touch "$top/layer/file"
umount "$top/layer"
snapshots commit committed a
snapshots view v committed > /dev/null
eval "$(snapshots mounts "$top/view" v)"
echo "expected: file"
echo "actual:   $(ls "$top/view")"
umount "$top/view"
