#!/bin/sh
# A file of the parent is replaced by a directory with a file in it; which changes are listed?
# Needs root and containers-storage. Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
cs() { containers-storage -g "$top/graph" -R "$top/run" -s overlay "$@"; }
cs create-layer -i base > /dev/null
touch "$(cs mount base)/x"
cs unmount base > /dev/null
cs create-layer -i layer base > /dev/null
view=$(cs mount layer)
rm "$view/x"
mkdir "$view/x"
touch "$view/x/y"
cs unmount layer > /dev/null
echo 'expected: Modify "/x" Add "/x/y"'
echo "actual:   $(cs changes layer 2>&1 | sed "s,$top/,,g" | tr '\n' ' ' | sed 's/ $//')"
