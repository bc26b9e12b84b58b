#!/bin/sh
# An archive that GNU tar writes with a global PAX header and no file; is the layer empty?
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
# tar names the header $TMPDIR/GlobalHead.1.
TMPDIR=/tmp tar --format=posix --pax-option=comment=text -cf "$top/one.tar" -T /dev/null
cs create-layer -i layer > /dev/null
cs applydiff -f "$top/one.tar" layer
echo "expected: no file"
found=$(ls "$(cs mount layer)")
echo "actual:   ${found:-no file}"
