"""The changes that a driver must report between two trees, and errors in a reported list."""

from collections import Counter
from collections.abc import Sequence

from graphdriver.contract import Change, ChangeKind
from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree, parents

__all__ = ["change_findings", "expected_changes"]


def expected_changes(old: Tree | None, new: Tree) -> dict[bytes, ChangeKind]:
    """Return the kind of change of each path, without its leading slash; parents are not included.

    A deleted directory is one deletion. Times of directories are ignored.
    """
    if old is None:
        return dict.fromkeys((name for name in new if name), ChangeKind.ADD)
    found: dict[bytes, ChangeKind] = {}
    for name in new:
        if not name:
            continue
        if name not in old:
            found[name] = ChangeKind.ADD
        elif not _same(old[name], new[name]):
            found[name] = ChangeKind.MODIFY
    for name in old:
        above = name.rpartition(b"/")[0]
        if name not in new and above in new and new[above].is_directory:
            found[name] = ChangeKind.DELETE
    return found


def change_findings(
    old: Tree | None, new: Tree, reported: Sequence[Change], *, optional: set[bytes] | None = None
) -> list[str]:
    """Return the errors in `reported`; [] if it is correct.

    Allowed: any order; unchanged directories above a change; a changed type as one MODIFY, or as
    DELETE and ADD; a file that gained or lost a hard link, as MODIFY; the paths in `optional`.
    """
    findings = [f"malformed row {change!r}" for change in reported if _is_malformed(change)]
    reported = [change for change in reported if not _is_malformed(change)]
    expected = expected_changes(old, new)
    above = {parent for name in expected for parent in parents(name)}
    rows = Counter((change.path[1:], change.kind) for change in reported)
    findings += [f"listed {n} times: {_shown(*row)}" for row, n in rows.items() if n > 1]
    for name, kind in expected.items():
        got = {k for n, k in rows if n == name}
        if name in (optional or ()) or _accepts(kind, got, old, new, name):
            continue
        kinds = " and ".join(sorted(one.name for one in got)) or "nothing"
        findings.append(f"expected {_shown(name, kind)}, reported {kinds}")
    for name, kind in rows:
        if name in expected or name in (optional or ()):
            continue
        if kind is ChangeKind.MODIFY and (name in above or _was_linked(old, new, name)):
            continue
        findings.append(f"reported {_shown(name, kind)}, but nothing happened there")
    return sorted(findings)


def _accepts(
    kind: ChangeKind, got: set[ChangeKind], old: Tree | None, new: Tree, name: bytes
) -> bool:
    if got == {kind}:
        return True
    swapped = old is not None and name in old and name in new and old[name].kind != new[name].kind
    return swapped and got in ({ChangeKind.DELETE, ChangeKind.ADD}, {ChangeKind.ADD})


def _same(old: Node, new: Node) -> bool:
    if new.kind is NodeKind.DIRECTORY:
        new = new.but(mtime=old.mtime)
    return old.but(link=b"") == new.but(link=b"")


def _was_linked(old: Tree | None, new: Tree, name: bytes) -> bool:
    """Return whether a file has other hard links than before: its link count changes."""
    if old is None or name not in old or name not in new:
        return False
    return _links(old, name) != _links(new, name)


def _links(tree: Tree, name: bytes) -> set[bytes]:
    link = tree[name].link
    return {one for one in tree if link and tree[one].link == link}


def _is_malformed(change: Change) -> bool:
    if not isinstance(change, Change) or not isinstance(change.path, bytes):
        return True  # a driver may return anything
    parts = change.path.split(b"/")
    base = parts[-1]
    return (
        not change.path.startswith(b"/")
        or b"" in parts[1:]
        or {b".", b".."} & set(parts) != set()
        or base.startswith(b".wh..wh.")
        or change.kind not in tuple(ChangeKind)
    )


def _shown(name: bytes, kind: ChangeKind) -> str:
    return f"{kind.letter} /{name.decode('utf-8', 'backslashreplace')}"
