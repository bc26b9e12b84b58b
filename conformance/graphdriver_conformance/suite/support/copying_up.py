"""System calls that cause a copy-up in overlayfs, on files of every type."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from graphdriver_conformance.oracle.tree import EPOCH, Node, NodeKind, file
from graphdriver_conformance.suite.support.differential import Call, Case

__all__ = ["COPY_UPS", "copy_up_cases"]


def _open_for_writing(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


COPY_UPS: Mapping[str, Call] = {
    "opened to write": _open_for_writing,
    "chmod": lambda path: path.chmod(0o700),
    "utime": lambda path: os.utime(path, (EPOCH, EPOCH + 9), follow_symlinks=False),
    "setxattr": lambda path: os.setxattr(path, "user.new", b"1", follow_symlinks=False),
    "chown": lambda path: os.chown(path, 0, 0, follow_symlinks=False),
    "link": lambda path: os.link(path, path.with_name("other"), follow_symlinks=False),
    "renamed": lambda path: path.rename(path.with_name("other")),
    "renamed over": lambda path: path.with_name("new").rename(path),
    "file made in": lambda path: (path / "made").touch(),
}
"""By the name in reports."""


def copy_up_cases(nodes: Mapping[str, Node]) -> dict[str, Case]:
    """Return a case for each call on each node to which it applies."""
    cases: dict[str, Case] = {}
    for (what, node), (why, call) in itertools.product(nodes.items(), COPY_UPS.items()):
        before: dict[str | bytes, Node | bytes | str] = {"x": node}
        if why == "renamed over":
            before["new"] = file(b"new", 0o611, mtime=EPOCH + 7)
        if node.kind is NodeKind.SYMLINK and why in ("chmod", "opened to write"):
            continue  # these calls follow the symlink
        if why == "file made in" and not node.is_directory:
            continue
        exdev = ("EXDEV",) if node.is_directory and why == "renamed" else ()
        cases[f"{why} of {what}"] = Case(_on("x", call), before, exdev)
    return cases


def _on(name: str, call: Call) -> Call:
    return lambda root: call(root / name)
