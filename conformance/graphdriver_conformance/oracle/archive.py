"""Layer archives in the oracle's hands: made, also wrong ones, and read strictly; by tarfile."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from graphdriver_conformance.oracle.tree import Node, NodeKind

__all__ = [
    "OPAQUE",
    "LayerEntry",
    "UnreadableArchive",
    "archive_findings",
    "build_archive",
    "entry_of",
    "opaque",
    "read_archive",
    "whiteout",
]

OPAQUE = b".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_TYPES = {
    NodeKind.FILE: tarfile.REGTYPE,
    NodeKind.DIRECTORY: tarfile.DIRTYPE,
    NodeKind.SYMLINK: tarfile.SYMTYPE,
    NodeKind.FIFO: tarfile.FIFOTYPE,
    NodeKind.CHARACTER: tarfile.CHRTYPE,
    NodeKind.BLOCK: tarfile.BLKTYPE,
}
_KINDS = {value: key for key, value in _TYPES.items()}


class UnreadableArchive(AssertionError, tarfile.TarError, ValueError):
    """An archive that no reader takes, or that says what cannot be: its maker is at fault."""


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A member as it stands in the archive: `name` raw, `hardlink` the target of one, else None."""

    name: bytes
    node: Node
    hardlink: bytes | None = None
    pax: tuple[tuple[str, str], ...] = field(default=())


def entry_of(name: str | bytes, node: Node, hardlink: bytes | None = None) -> LayerEntry:
    """Return an entry for `node`."""
    return LayerEntry(name.encode() if isinstance(name, str) else name, node, hardlink)


def whiteout(name: str | bytes) -> LayerEntry:
    """Return the entry that deletes `name`."""
    raw = name.encode() if isinstance(name, str) else name
    above, slash, base = raw.rpartition(b"/")
    return LayerEntry(above + slash + b".wh." + base, Node(NodeKind.FILE, 0o600))


def opaque(directory: str | bytes) -> LayerEntry:
    """Return the entry that hides all below `directory`."""
    raw = directory.encode() if isinstance(directory, str) else directory
    return LayerEntry(raw + b"/" + OPAQUE if raw else OPAQUE, Node(NodeKind.FILE, 0o600))


def build_archive(entries: Iterable[LayerEntry]) -> bytes:
    """Return the archive of `entries`, in their order, whatever they say."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(_info(entry), io.BytesIO(entry.node.content))
    return buffer.getvalue()


def read_archive(data: bytes | BinaryIO) -> list[LayerEntry]:
    """Return the entries of an uncompressed archive. Raises UnreadableArchive, a TarError."""
    raw = data if isinstance(data, bytes) else data.read()
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:", errors="surrogateescape") as archive:
            return [_entry(archive, member) for member in archive]
    except (tarfile.TarError, ArithmeticError, EOFError, LookupError, ValueError) as error:
        # tarfile has errors of its own for some of what can be wrong, and Python's for the rest.
        kind = type(error).__name__
        raise UnreadableArchive(f"{len(raw)} bytes that are no archive: {kind}: {error}") from error


def archive_findings(data: bytes) -> list[str]:
    """Return what is wrong with an archive that a driver made (image-spec, layer.md)."""
    try:
        entries = read_archive(data)
    except tarfile.TarError as error:
        return [f"it is no tar archive: {error}"]
    findings: list[str] = []
    if len(data) % 512 or len(data) < 1024 or data[-1024:].strip(b"\0"):
        findings.append("it does not end with two blocks of zeros")
    seen: set[bytes] = set()
    for entry in entries:
        name = entry.name.removeprefix(b"./").rstrip(b"/")
        findings += [f"{entry.name!r}: {found}" for found in _entry_findings(entry, name, seen)]
        seen.add(name)
    return findings


def _entry_findings(entry: LayerEntry, name: bytes, seen: set[bytes]) -> list[str]:
    parts, findings = name.split(b"/"), []
    if entry.name.startswith(b"/") or b".." in parts or b"" in parts[1:]:
        findings.append("the path is absolute or leaves the layer")
    if name in seen:
        findings.append("listed twice")
    base = parts[-1]
    if base.startswith(b".wh."):
        if entry.node.kind is not NodeKind.FILE or entry.node.content or entry.hardlink is not None:
            findings.append("a whiteout that is no empty regular file")
        if base.startswith(b".wh..wh.") and base != OPAQUE:
            findings.append("a marker that only aufs knows")
        if base in (b".wh.", b".wh..", b".wh..."):
            findings.append("a whiteout of nothing")
    if any(key.startswith(("trusted.overlay.", "user.overlay.")) for key, _ in entry.node.xattrs):
        findings.append("overlay's private attributes are in the archive")
    if entry.hardlink is not None and entry.hardlink.removeprefix(b"./") not in seen:
        findings.append(f"a hard link to {entry.hardlink!r}, which does not come before it")
    return findings


def _info(entry: LayerEntry) -> tarfile.TarInfo:
    node = entry.node
    info = tarfile.TarInfo(_text(entry.name))
    info.type = tarfile.LNKTYPE if entry.hardlink is not None else _TYPES[node.kind]
    info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, node.mtime
    info.linkname = _text(node.target if entry.hardlink is None else entry.hardlink)
    info.devmajor, info.devminor = node.rdev
    info.size = len(node.content) if info.type == tarfile.REGTYPE else 0
    xattrs = {_XATTR + key: _text(value) for key, value in node.xattrs}
    info.pax_headers = {**xattrs, **dict(entry.pax)}
    return info


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> LayerEntry:
    kind = _KINDS.get(b"0" if member.isfile() or member.islnk() else member.type, NodeKind.FILE)
    opened = archive.extractfile(member) if member.isfile() else None
    node = Node(
        kind,
        member.mode & 0o7777 if kind is not NodeKind.SYMLINK else 0o777,
        member.uid,
        member.gid,
        int(member.mtime // 1),
        opened.read() if opened else b"",
        _bytes(member.linkname) if kind is NodeKind.SYMLINK else b"",
        (member.devmajor, member.devminor)
        if kind in (NodeKind.CHARACTER, NodeKind.BLOCK)
        else (0, 0),
        frozenset(
            (key.removeprefix(_XATTR), _bytes(value))
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR)
        ),
    )
    return LayerEntry(
        _bytes(member.name), node, _bytes(member.linkname) if member.islnk() else None
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
