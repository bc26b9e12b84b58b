#!/bin/sh
# ApplyDiff, in which removing the directory for pivot_root(2) fails with EIO (injected with strace,
# in the thread that changed its root). Needs root, strace and gd (gd.go).
# Run in a mount namespace of its own: unshare --mount sh FILE
set -eu
top=$(mktemp -d)
home=$top/home
gd overlay2 "$home" create c
mkdir "$top/tree"
echo new > "$top/tree/file"
tar -C "$top/tree" -cf "$top/tar" file
result="apply fails"
if strace -f -o "$top/log" -e trace=unlinkat -e inject=unlinkat:error=EIO:when=2 \
    gd overlay2 "$home" apply c < "$top/tar" 2> "$top/error"; then
    result="apply succeeds, and the layer contains: $(ls -A "$home/c/diff" | tr '\n' ' ')"
fi
grep -q '/\.pivot_root.*AT_REMOVEDIR.*INJECTED' "$top/log" # otherwise another call was meant
echo "expected: apply fails"
echo "actual:   $result" | sed 's/root[0-9]*/rootNUMBER/; s/ $//'
