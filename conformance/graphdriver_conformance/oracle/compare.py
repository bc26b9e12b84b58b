"""Descriptions of the differences between two trees, for driver authors."""

from enum import Flag, auto

from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree

__all__ = ["Aspect", "TreesDiffer", "assert_same_tree", "differences"]

_MOST_LINES = 20


class Aspect(Flag):
    """The aspects of a node to compare, besides its existence and type."""

    MODE = auto()
    OWNER = auto()
    CONTENT = auto()
    MTIME = auto()
    DIRECTORY_MTIME = auto()
    XATTRS = auto()
    HARDLINKS = auto()
    ROOT = auto()
    DEFAULT = MODE | OWNER | CONTENT | MTIME | XATTRS
    ALL = DEFAULT | DIRECTORY_MTIME | HARDLINKS | ROOT


class TreesDiffer(AssertionError):
    """Two trees differ: `lines` describe the differences, `count` is their number, `message` names
    the trees.
    """

    def __init__(self, message: str, lines: list[str]) -> None:
        self.message = message or "the trees differ"
        self.count = len(lines)
        cut = len(lines) - _MOST_LINES
        self.lines = lines if cut <= 0 else [*lines[:_MOST_LINES], f"... and {cut} more"]
        super().__init__("\n  ".join([self.message, *self.lines]))


def differences(expected: Tree, actual: Tree, aspects: Aspect = Aspect.DEFAULT) -> list[str]:
    """Return a line for each difference, sorted by name; [] for none."""
    lines: list[str] = []
    expected, actual = expected.canonical(), actual.canonical()
    for name in sorted({*expected, *actual}):
        if not name and Aspect.ROOT not in aspects:
            continue
        shown = "/" + name.decode("utf-8", "backslashreplace")
        if name not in actual:
            lines.append(f"- {shown}: the {expected[name].kind.value} is missing")
        elif name not in expected:
            lines.append(f"+ {shown}: a {actual[name].kind.value} that should not be there")
        else:
            lines += [
                f"! {shown}: {one}" for one in _of_node(expected[name], actual[name], aspects)
            ]
    return lines


def assert_same_tree(
    expected: Tree, actual: Tree, message: str = "", aspects: Aspect = Aspect.DEFAULT
) -> None:
    """Raise TreesDiffer, an AssertionError, with the differences, under `message`."""
    if lines := differences(expected, actual, aspects):
        raise TreesDiffer(message, lines)


def _of_node(expected: Node, actual: Node, aspects: Aspect) -> list[str]:
    if expected.kind is not actual.kind:
        return [f"expected a {expected.kind.value}, found a {actual.kind.value}"]
    found: list[str] = []

    def check(wanted: Aspect, what: str, one: object, other: object) -> None:
        if wanted in aspects and one != other:
            found.append(f"expected {what} {_short(one)}, found {_short(other)}")

    mtime = Aspect.DIRECTORY_MTIME if expected.is_directory else Aspect.MTIME
    if expected.kind is not NodeKind.SYMLINK:
        check(Aspect.MODE, "mode", oct(expected.mode), oct(actual.mode))
    check(Aspect.OWNER, "owner", (expected.uid, expected.gid), (actual.uid, actual.gid))
    check(Aspect.CONTENT, "content", expected.content, actual.content)
    check(Aspect.CONTENT, "target", expected.target, actual.target)
    check(Aspect.CONTENT, "device", expected.rdev, actual.rdev)
    check(mtime, "mtime", expected.mtime, actual.mtime)
    check(Aspect.XATTRS, "attributes", sorted(expected.xattrs), sorted(actual.xattrs))
    check(Aspect.HARDLINKS, "to be one file with", expected.link, actual.link)
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
