"""The observable properties of a view, an archive or a home, without those that differ between
runs.

Pasted into every script; therefore it uses the standard library only.
"""

import contextlib
import hashlib
import io
import os
import re
import stat
import tarfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Tree = Mapping[bytes, Mapping[str, Any]]
"""The properties of each path of a view; the root is b""."""

_BIGGEST = 64 << 20
_STARTED = time.time()


def scan(root: str | os.PathLike[str]) -> Tree:
    """Return {path: properties} of a directory, with inode numbers; the root is b""."""
    found: dict[bytes, dict[str, Any]] = {}
    todo = [(os.fsencode(root), b"")]
    while todo:
        path, name = todo.pop()
        try:
            found[name] = _node(path)
            if found[name]["kind"] == stat.S_IFDIR:
                todo += [
                    (path + b"/" + one, name + b"/" + one if name else one)
                    for one in os.listdir(path)
                ]
        except OSError:
            continue
    return found


def _node(path: bytes) -> dict[str, Any]:
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    node = {
        "kind": kind,
        "mode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime": info.st_mtime_ns,
        "inode": (info.st_dev, info.st_ino),
        "links": info.st_nlink if kind != stat.S_IFDIR else 1,
        "content": b"",
    }
    if kind == stat.S_IFREG:
        small = info.st_size <= _BIGGEST
        node["content"] = Path(os.fsdecode(path)).read_bytes() if small else info.st_size
    elif kind == stat.S_IFLNK:
        node["content"] = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        node["content"] = info.st_rdev
    node["xattrs"] = xattrs_of(path)
    return node


def xattrs_of(path: bytes) -> dict[str, bytes]:
    """Return the xattrs that are content; not labels, nor overlay's own."""
    with contextlib.suppress(OSError):
        names = os.listxattr(path, follow_symlinks=False)
        return {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in sorted(names)
            if name.startswith("user.")
            or name
            in ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
        }
    return {}


def digest(value: object) -> str:
    """Return a short hash of a value."""
    return hashlib.sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def moment(seconds: float) -> int | str:
    """Return the time, or "now" if the run itself may have set it."""
    return "now" if _STARTED - 5 <= seconds <= time.time() + 5 else int(seconds)


def observed_tree(found: Tree) -> str:
    """Return the properties of a view: types, metadata, contents, and hard links."""
    groups: dict[Any, bytes] = {}
    for name in sorted(found):
        if found[name]["links"] > 1:
            groups.setdefault(found[name]["inode"], name)
    rows = [
        (
            name,
            one["kind"],
            one["mode"],
            one["uid"],
            one["gid"],
            one["content"],
            sorted(one["xattrs"].items()),
            moment(one["mtime"] / 1e9),
            groups.get(one["inode"], b"") if one["links"] > 1 else b"",
        )
        for name, one in sorted(found.items())
    ]
    return f"a tree of {len(rows) - 1} nodes, {digest(rows)}"


def observed_archive(data: bytes) -> str:
    """Return the members of an archive, in order."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as tar:
            rows = [
                (
                    m.name,
                    m.type,
                    m.mode,
                    m.uid,
                    m.gid,
                    m.size,
                    m.linkname,
                    m.devmajor,
                    m.devminor,
                    moment(m.mtime),
                    sorted(
                        (k, v)
                        for k, v in m.pax_headers.items()
                        if "mtime" not in k and "atime" not in k and "ctime" not in k
                    ),
                    digest((tar.extractfile(m) or io.BytesIO()).read())
                    if m.isreg() and m.size <= _BIGGEST
                    else "",
                )
                for m in tar
            ]
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        return f"{len(data)} bytes that are no archive, {digest(data)}"
    return f"an archive of {len(rows)} members, {digest(rows)}"


def home_names(place: Path) -> Counter[str]:
    """Return the files beside and below the home, with modes and symlink targets."""
    points = set(mounts_below(place))
    names: list[str] = []
    todo = [(Path(place), 0)]
    while todo:
        directory, depth = todo.pop()
        for path in directory.iterdir() if depth < 4 else ():
            mode = path.lstat().st_mode
            leads = f" -> {os.readlink(path)}" if stat.S_ISLNK(mode) else ""
            names.append(f"{mode:o} {without_random(str(path.relative_to(place)))}{leads}")
            if stat.S_ISDIR(mode) and str(path) not in points:
                todo.append((path, depth + 1))
    return Counter(names)


def observed_home(now: Counter[str], before: Counter[str]) -> str:
    """Return the names that were created and removed."""
    appeared, gone = sorted((now - before).elements()), sorted((before - now).elements())
    return f"{len(appeared)} new names and {len(gone)} gone, {digest((appeared, gone))}"


def without_random(text: str) -> str:
    """Return the text with each random name replaced by LINK."""

    def named(match: re.Match[str]) -> str:
        return "LINK" if len(set(match[0])) > 8 else match[0]

    return re.sub(r"[A-Z0-9]{20,}", named, text)


def mounts_below(place: str | Path) -> list[str]:
    """Return the mount points below a directory, in the order they were made."""
    points = []
    # Split at newlines and blanks only: a path may contain any other byte, also a carriage return.
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        for field in line.split(b" ")[4:5]:
            # Blanks, newlines and backslashes are octal there, see proc(5).
            raw = re.sub(rb"\\([0-3][0-7]{2})", lambda octal: bytes([int(octal[1], 8)]), field)
            if os.fsdecode(raw).startswith(f"{place}/"):
                points.append(os.fsdecode(raw))
    return points


def observed_answer(verb: str, answer: Any, place: Path) -> object:
    """Return the observable result of a verb."""
    if verb == "get":
        return observed_tree(scan(answer))
    if verb == "changes":
        rows = [(int(one.kind), bytes(one.path)) for one in answer]
        return f"{len(rows)} changes, {digest(rows)}"
    if verb == "get_metadata":
        text = repr(sorted((answer or {}).items())).replace(str(place), "PLACE")
        return f"metadata, {digest(without_random(text))}"
    return answer if isinstance(answer, (bool, int)) else None
