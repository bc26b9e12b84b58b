#!/bin/sh
# A layer is mounted; shutdown --force is to unmount it.
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i a > /dev/null
cs create-layer -i b a > /dev/null
cs mount b > /dev/null
echo "expected: shutdown --force ends"
if timeout -s KILL 60 containers-storage -g "$top/graph" -R "$top/run" -s overlay \
    shutdown --force > "$top/log" 2>&1; then
    echo "actual:   shutdown --force ends"
else
    echo "actual:   shutdown --force does not end within 60 s"
fi
