"""Layer archives in the oracle: written in any dialect, also malformed, and read strictly."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

from graphdriver_conformance.oracle.tar_blocks import (
    END,
    Format,
    Header,
    UnreadableArchive,
    extended,
    long_name,
    padded,
    raw_members,
)
from graphdriver_conformance.oracle.tree import Node, NodeKind

__all__ = [
    "OPAQUE",
    "PLAIN",
    "Dialect",
    "LayerEntry",
    "Long",
    "UnreadableArchive",
    "archive_findings",
    "build_archive",
    "build_member",
    "entry_of",
    "opaque",
    "read_archive",
    "whiteout",
]

OPAQUE = b".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_TYPES = {
    NodeKind.FILE: b"0",
    NodeKind.DIRECTORY: b"5",
    NodeKind.SYMLINK: b"2",
    NodeKind.FIFO: b"6",
    NodeKind.CHARACTER: b"3",
    NodeKind.BLOCK: b"4",
}
_KINDS = {value: key for key, value in _TYPES.items()}
_HARDLINK = b"1"
_OLDEST = (NodeKind.FILE, NodeKind.DIRECTORY, NodeKind.SYMLINK)
_RECORD = 10240


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A member as stored in the archive: `name` raw, `hardlink` the target of one, else None.

    `pax` are records in addition to those that the node needs.
    """

    name: bytes
    node: Node
    hardlink: bytes | None = None
    pax: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> bytes:
        """The path in the layer: without `./` and slashes at the end, b"" for the root."""
        path = self.name.removeprefix(b"./").rstrip(b"/")
        return b"" if path == b"." else path


class Long(Enum):
    """The representation of a path or number that does not fit into its header field."""

    PAX = "PAX records"
    GNU = "GNU's long names and numbers in base 256"


@dataclass(frozen=True, slots=True)
class Dialect:
    """The format of an archive; each variation is used by programs that write layers.

    `root` precedes every name and hard link target, unless `root_of_links` differs; with `slashes`
    the names of directories end with one; `old_files` have type NUL instead of 0, and
    `old_directories` too; `always_long` represents all paths as `long` defines, also short ones;
    `comment` adds a global header at the start; the archive ends with `blocks` blocks of zeros, and
    its length is a multiple of `record` bytes.
    """

    format: Format = Format.USTAR
    long: Long = Long.PAX
    root: bytes = b""
    root_of_links: bytes = b""
    slashes: bool = False
    old_files: bool = False
    old_directories: bool = False
    always_long: bool = False
    base256: bool = False
    comment: bool = False
    blocks: int = 2
    record: int = _RECORD


PLAIN = Dialect()
"""The format of PAX archives that Python's tarfile writes."""


def entry_of(name: str | bytes, node: Node, hardlink: bytes | None = None) -> LayerEntry:
    """Return an entry for `node`."""
    return LayerEntry(name.encode() if isinstance(name, str) else name, node, hardlink)


def whiteout(name: str | bytes) -> LayerEntry:
    """Return the entry that deletes `name`."""
    raw = name.encode() if isinstance(name, str) else name
    above, slash, base = raw.rpartition(b"/")
    return LayerEntry(above + slash + b".wh." + base, Node(NodeKind.FILE, 0o600))


def opaque(directory: str | bytes) -> LayerEntry:
    """Return the entry that hides all lower entries of `directory`."""
    raw = directory.encode() if isinstance(directory, str) else directory
    return LayerEntry(raw + b"/" + OPAQUE if raw else OPAQUE, Node(NodeKind.FILE, 0o600))


def build_archive(entries: Iterable[LayerEntry], dialect: Dialect = PLAIN) -> bytes:
    """Return the archive of `entries`, in their order, without validation."""
    chunks = [extended([(b"comment", b"made by hand")], b"g")] if dialect.comment else []
    chunks += [build_member(entry, dialect) for entry in entries]
    chunks.append(END[: dialect.blocks * 512])
    whole = b"".join(chunks)
    return whole + bytes(-len(whole) % dialect.record)


def read_archive(data: bytes | BinaryIO) -> list[LayerEntry]:
    """Return the entries of an uncompressed archive. Raises UnreadableArchive, a TarError."""
    raw = data if isinstance(data, bytes) else data.read()
    try:
        members = list(raw_members(raw))
    except UnreadableArchive as error:
        raise UnreadableArchive(f"{len(raw)} bytes that are not an archive: {error}") from error
    entries: list[LayerEntry] = []
    for member in members:
        header = member.header
        is_link = header.flag == _HARDLINK
        kind = _KINDS.get(header.flag, NodeKind.FILE)
        if header.flag == b"\0" and header.name[-1:] == b"/":
            kind = NodeKind.DIRECTORY
        node = Node(
            kind,
            header.mode & 0o7777 if kind is not NodeKind.SYMLINK else 0o777,
            header.uid,
            header.gid,
            header.mtime,
            b"" if is_link or kind is not NodeKind.FILE else member.content,
            header.link if kind is NodeKind.SYMLINK else b"",
            header.device,
            frozenset(
                (_text(key).removeprefix(_XATTR), value)
                for key, value in member.records.items()
                if key.startswith(_XATTR.encode())
            ),
        )
        name = header.name.rstrip(b"/") if kind is NodeKind.DIRECTORY else header.name
        entries.append(LayerEntry(name or header.name, node, header.link if is_link else None))
    return entries


def archive_findings(data: bytes) -> list[str]:
    """Return the errors of an archive that a driver wrote (image-spec, layer.md)."""
    try:
        entries = read_archive(data)
    except UnreadableArchive as error:
        return [str(error)]
    findings: list[str] = []
    if len(data) % 512 or len(data) < 1024 or data[-1024:].strip(b"\0"):
        findings.append("it does not end with two blocks of zeros")
    seen: set[bytes] = set()
    for entry in entries:
        name = entry.path
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


def build_member(entry: LayerEntry, dialect: Dialect = PLAIN) -> bytes:
    """Return the blocks of one member.

    Values that do not fit into the format are represented as the dialect defines, xattrs in
    records.
    """
    node, records = entry.node, [(_raw(_XATTR + key), value) for key, value in entry.node.xattrs]
    name = _named(entry.name, dialect.root)
    flag, link = _HARDLINK, node.target
    if entry.hardlink is not None:
        link = _named(entry.hardlink, dialect.root_of_links)
    else:
        flag = _TYPES[node.kind]
    is_old = (node.kind is NodeKind.FILE and dialect.old_files) or (
        node.is_directory and dialect.old_directories
    )
    if flag in (b"0", b"5") and is_old:
        flag = b"\0"
    if node.is_directory and (dialect.slashes or flag == b"\0") and name[-1:] != b"/":
        name += b"/"
    format = dialect.format
    if format is Format.V7 and node.kind not in _OLDEST:
        format = Format.USTAR
    is_gnu = dialect.long is Long.GNU
    if is_gnu and not _fits(node):
        format = Format.GNU
    content = node.content if flag in (b"0", b"\0") and node.kind is NodeKind.FILE else b""
    ahead: list[bytes] = []
    prefix, short = _split(name, format)
    if dialect.always_long or len(short) + len(prefix) < len(name) - 1:
        ahead += [long_name(name)] if is_gnu else []
        records += [] if is_gnu else [(b"path", name)]
    if len(link) > 100 or (link and dialect.always_long):
        ahead += [long_name(link, b"K")] if is_gnu else []
        records += [] if is_gnu else [(b"linkpath", link)]
    header = Header(
        short,
        flag,
        node.mode,
        node.uid,
        node.gid,
        len(content),
        node.mtime,
        link[:100],
        node.rdev,
        prefix,
        format,
        dialect.base256 and format in (Format.GNU, Format.STAR),
    )
    if format in (Format.USTAR, Format.V7):
        header, large = _without_large(header)
        records += large
    records += [(_raw(key), _raw(value)) for key, value in entry.pax]
    if records:
        ahead.append(extended(dict(records).items()))
    return b"".join([*ahead, header.block(), padded(content)])


def _without_large(header: Header) -> tuple[Header, list[tuple[bytes, bytes]]]:
    """Return the header with 0 for numbers that exceed their fields, and records for them."""
    large: list[tuple[bytes, bytes]] = []
    if not 0 <= header.uid < 8**7:
        large.append((b"uid", b"%d" % header.uid))
        header = dataclasses.replace(header, uid=0)
    if not 0 <= header.gid < 8**7:
        large.append((b"gid", b"%d" % header.gid))
        header = dataclasses.replace(header, gid=0)
    if not 0 <= header.mtime < 8**11:
        large.append((b"mtime", b"%d" % header.mtime))
        header = dataclasses.replace(header, mtime=0)
    return header, large


def _fits(node: Node) -> bool:
    """Return whether a node's numbers fit into octal fields."""
    return max(node.uid, node.gid) < 8**7 and 0 <= node.mtime < 8**11


def _named(name: bytes, root: bytes) -> bytes:
    """Return the name below `root`, which is b"", b"./" or b"/"."""
    bare = name.removeprefix(b"./") if root else name
    return root + bare if root and not name.startswith(b"/") else name


def _split(name: bytes, format: Format) -> tuple[bytes, bytes]:
    """Return prefix and name for the fields of a header; the name is truncated if it fits
    neither.
    """
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, min(format.prefix + 1, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return b"", name[:100]
    return name[:cut], name[cut + 1 :]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
