"""Members in the formats of tar programs, each with the expected nodes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphdriver_conformance.oracle.archive import Dialect, LayerEntry, Long, build_member
from graphdriver_conformance.oracle.tar_blocks import (
    Format,
    Header,
    extended,
    long_name,
    padded,
    record,
    sparse_map,
)
from graphdriver_conformance.oracle.tree import EPOCH, Node, Tree, directory, file, symlink

__all__ = ["COMMON", "DIALECTS", "FOREIGN", "RARE", "ROOTS", "SPARSE", "Form", "nodes_of"]

DIALECTS = {
    "v7": Dialect(Format.V7, old_files=True, slashes=True),
    "v7-slashes": Dialect(Format.V7, old_files=True, old_directories=True, long=Long.GNU),
    "ustar": Dialect(slashes=True),
    "ustar-dot": Dialect(root=b"./", root_of_links=b"./", slashes=True),
    "ustar-absolute": Dialect(root=b"/", root_of_links=b"/"),
    "link-absolute": Dialect(root_of_links=b"/"),
    "link-dot": Dialect(root_of_links=b"./"),
    "gnu": Dialect(Format.GNU, Long.GNU, slashes=True),
    "gnu-base256": Dialect(Format.GNU, Long.GNU, base256=True),
    "gnu-long": Dialect(Format.GNU, Long.GNU, always_long=True, root=b"./", slashes=True),
    "pax-long": Dialect(always_long=True),
    "star": Dialect(Format.STAR),
}
"""The features that Docker, containerd and containers-storage read."""


@dataclass(frozen=True, slots=True)
class Form:
    """Blocks of one or more members, and the nodes that they create in an empty layer, by name."""

    name: str
    blocks: bytes
    nodes: Mapping[bytes, Node] = field(default_factory=dict)


def nodes_of(forms: Iterable[Form]) -> Tree:
    """Return the tree that the forms create, with implied directories."""
    return Tree.of({name: node for form in forms for name, node in form.nodes.items()})


def _sample(name: str, dialect: Dialect) -> Form:
    """Return a tree with paths around the lengths of the fields, in a directory of its own."""
    top = name.encode()
    deep = top + b"/" + b"/".join([b"p" * 40, b"q" * 40, b"r" * 40])
    nodes: dict[bytes, Node] = {
        top: directory(0o700),
        top + b"/f": file(b"content", 0o640, mtime=EPOCH + 1),
        top + b"/empty": file(),
        top + b"/large": file(b"x" * 1500, mtime=8**11 + 7),
        top + b"/d": directory(0o1777),
        top + b"/d/s": symlink(b"../f"),
        top + b"/" + b"n" * 150: file(b"long"),
        top + b"/" + b"e" * (98 - len(top)): directory(),
        top + b"/to": symlink(b"t" * 150),
        top + b"/just": symlink(b"t" * 100),
        top + b"/" + b"j" * (99 - len(top)): file(b"just a hundred"),
        # The maximum length of ustar's prefix and name.
        top + b"/" + b"P" * (154 - len(top)) + b"/" + b"N" * 100: file(b"full"),
        deep: directory(),
        deep + b"/" + b"f" * 30: file(b"deep"),
        deep + b"/" + b"g" * 101: file(b"deeper"),
    }
    entries = [LayerEntry(name, node) for name, node in nodes.items()]
    links = {
        b"/h": b"/f",
        # Its directory has no entry of its own.
        b"/implied/h": b"/" + b"n" * 150,
        b"/d/hs": b"/d/s",
    }
    for link, target in links.items():
        node = nodes[top + link] = nodes[top + target]
        # Tar programs read both names' metadata from one inode; some readers set a link's times.
        header = file(b"", node.mode, mtime=node.mtime)
        entries.append(LayerEntry(top + link, header, top + target))
    return Form(name, b"".join(build_member(entry, dialect) for entry in entries), nodes)


def _file(name: str, content: bytes = b"content", *, ahead: bytes = b"", **fields: object) -> bytes:
    return ahead + _header(name, size=len(content), **fields).block() + padded(content)


def _header(name: str, **fields: object) -> Header:
    return Header(name.encode(), **{"mtime": EPOCH, **fields})  # type: ignore[arg-type]


def _pax(**records: str) -> bytes:
    return extended([(key.encode(), value.encode()) for key, value in records.items()])


CONTENT = file(b"content")
_COMMENT = [(b"comment", b"made by hand")]

COMMON: Sequence[Form] = (
    *(_sample(name, dialect) for name, dialect in DIALECTS.items()),
    Form("global header of git", extended(_COMMENT, b"g")),
    Form(
        "global header of GNU tar",
        _header("/tmp/GlobalHead.1.1", flag=b"g", size=len(record(*_COMMENT[0]))).block()
        + padded(record(*_COMMENT[0])),
    ),
    Form(
        "times in a GNU header",
        _file(
            "gnu-times",
            format=Format.GNU,
            patches=((345, b"%011o\0" % EPOCH), (357, b"%011o\0" % EPOCH)),
        ),
        {b"gnu-times": CONTENT},
    ),
    Form(
        "numbers after blanks",
        _file("blanks", patches=((100, b"   644 \0"), (108, b"     0 \0"), (116, b"     0 \0"))),
        {b"blanks": CONTENT},
    ),
    Form(
        "size in a record",
        _pax(size="7") + _header("pax-size").block() + padded(b"content"),
        {b"pax-size": CONTENT},
    ),
    Form(
        "times with fractions",
        _pax(mtime=f"{EPOCH}.9", atime=f"{EPOCH}.000000001", ctime=f"{EPOCH}.5")
        + _file("fraction", mtime=EPOCH + 77),
        {b"fraction": CONTENT},
    ),
    Form(
        "unknown records",
        extended([(b"comment", b"=a\n9 path=b\n"), (b"VENDOR.key", b"\xff=\n3 a=b\n")])
        + _file("vendor"),
        {b"vendor": CONTENT},
    ),
    Form(
        "names without a character set",
        extended([(b"hdrcharset", b"BINARY"), (b"path", b"binary-\xff\xfe")]) + _file("other"),
        {b"binary-\xff\xfe": CONTENT},
    ),
    Form(
        "names of owners",
        _file("named", patches=((265, b"nobody"), (297, b"nogroup"))),
        {b"named": CONTENT},
    ),
)
"""Forms that every engine reads: a refusal prevents the pull of an image."""

ROOTS: Sequence[Form] = (
    Form("./", _header("./", flag=b"5", mode=0o755).block()),
    Form("/", _header("/", flag=b"5", mode=0o755).block()),
    Form(".", _header(".", flag=b"5", mode=0o755).block()),
)
"""The root as a member."""

# A name of 120 bytes whose first hundred end in a slash.
_CUT = "c" * 99 + "/" + "c" * 20
_DIRECTORY = "l" * 120 + "/"

_Segments = tuple[tuple[int, int], ...]

# GNU tar's segments are whole blocks; an empty one at the end defines the length of the file.
_MAPS: Mapping[str, _Segments] = {
    "holes": ((0, 512), (4096, 512), (8192, 0)),
    "hole-first": ((4096, 1024),),
    "all-hole": ((8192, 0),),
    # More than fit into a header, and into a block after it.
    "long": (*((one * 1024, 512) for one in range(30)), (30 * 1024, 0)),
}


def _stored(segments: _Segments) -> bytes:
    """Return the stored data of a file with data at `segments`."""
    return b"".join((b"%d" % offset).ljust(length, b"-") for offset, length in segments if length)


def _content(segments: _Segments) -> bytes:
    whole = bytearray(sum(segments[-1]))
    for offset, length in segments:
        whole[offset : offset + length] = _stored(((offset, length),))
    return bytes(whole)


def _gnu_sparse(name: str, segments: _Segments) -> bytes:
    pairs = [b"%011o\0%011o\0" % segment for segment in segments]
    rest = [b"".join(pairs[at : at + 21]) for at in range(4, len(pairs), 21)]
    more = b"".join(
        block.ljust(504, b"\0") + (b"\1" if block != rest[-1] else b"\0") + bytes(7)
        for block in rest
    )
    data = _stored(segments)
    size = b"%011o\0" % sum(segments[-1])
    patches = ((386, b"".join(pairs[:4])), (482, b"\1" if rest else b"\0"), (483, size))
    header = _header(name, flag=b"S", format=Format.GNU, size=len(data), patches=patches)
    return header.block() + more + padded(data)


def _sparse_0(name: str, segments: _Segments, *, is_one_map: bool) -> bytes:
    records = [
        (b"GNU.sparse.size", b"%d" % sum(segments[-1])),
        (b"GNU.sparse.numblocks", b"%d" % len(segments)),
    ]
    if is_one_map:
        numbers = b",".join(b"%d,%d" % segment for segment in segments)
        records += [(b"GNU.sparse.map", numbers), (b"GNU.sparse.name", name.encode())]
    else:
        for offset, length in segments:
            records.append((b"GNU.sparse.offset", b"%d" % offset))
            records.append((b"GNU.sparse.numbytes", b"%d" % length))
    return extended(records) + _file(
        "GNUSparseFile.1/sparse" if is_one_map else name, _stored(segments)
    )


def _sparse_1(name: str, segments: _Segments) -> bytes:
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name.encode()),
        (b"GNU.sparse.realsize", b"%d" % sum(segments[-1])),
    ]
    data = sparse_map(segments) + _stored(segments)
    return extended(records) + _file("GNUSparseFile.1/sparse", data)


def _sparse_forms() -> Iterator[Form]:
    for kind, segments in _MAPS.items():
        written = {
            f"sparse-S-{kind}": _gnu_sparse(f"sparse-S-{kind}", segments),
            f"sparse-0.0-{kind}": _sparse_0(f"sparse-0.0-{kind}", segments, is_one_map=False),
            f"sparse-0.1-{kind}": _sparse_0(f"sparse-0.1-{kind}", segments, is_one_map=True),
            f"sparse-1.0-{kind}": _sparse_1(f"sparse-1.0-{kind}", segments),
        }
        for name, blocks in written.items():
            yield Form(name, blocks, {name.encode(): file(_content(segments))})


SPARSE: Sequence[Form] = tuple(_sparse_forms())
"""Files with holes, as GNU tar -S writes them: type S, and PAX 0.0, 0.1 and 1.0."""

RARE: Sequence[Form] = (
    *SPARSE,
    Form("type 7", _file("contiguous", flag=b"7"), {b"contiguous": CONTENT}),
    Form("type of a vendor", _file("vendor-type", flag=b"Z"), {b"vendor-type": CONTENT}),
    Form(
        "directory of an incremental dump",
        _header("dumped", flag=b"D", mode=0o755, size=10, format=Format.GNU).block()
        + padded(b"Yone\0\0"),
        {b"dumped": directory()},
    ),
    Form("volume label", _header("label", flag=b"V", mode=0, format=Format.GNU).block()),
    Form(
        "old file whose cut name ends in a slash",
        long_name(_CUT.encode()) + _file(_CUT[:100], flag=b"\0", format=Format.GNU),
        {_CUT.encode(): CONTENT},
    ),
    Form(
        "old file whose cut name ends in a slash, by a record",
        _pax(path="p" + _CUT[1:]) + _file("p" + _CUT[1:100], flag=b"\0"),
        {b"p" + _CUT[1:].encode(): CONTENT},
    ),
    Form(
        "old directory with a long name",
        long_name(_DIRECTORY.encode())
        + _header(_DIRECTORY[:100], flag=b"\0", mode=0o755, format=Format.GNU).block()
        + long_name(_DIRECTORY.encode() + b"f")
        + _file(_DIRECTORY[:100], flag=b"\0", format=Format.GNU),
        {_DIRECTORY[:-1].encode(): directory(), _DIRECTORY.encode() + b"f": CONTENT},
    ),
    Form("empty path in a record", _pax(path="") + _file("no-path"), {b"no-path": CONTENT}),
    Form(
        "empty target in a record",
        _pax(linkpath="") + _header("no-target", flag=b"2", link=b"to").block(),
        {b"no-target": symlink("to")},
    ),
    Form(
        "empty numbers in records",
        _pax(uid="", gid="", mtime="", size="") + _file("no-numbers"),
        {b"no-numbers": CONTENT},
    ),
    Form(
        "duplicate record",
        extended([(b"path", b"first-path"), (b"path", b"last-path")]) + _file("other-path"),
        {b"last-path": CONTENT},
    ),
    Form(
        "two headers of records",
        _pax(path="replaced") + _pax(mtime=str(EPOCH)) + _file("own-name", mtime=EPOCH + 5),
        {b"own-name": CONTENT},
    ),
    Form(
        "two long names",
        long_name(b"replaced-name") + long_name(b"last-name") + _file("x", format=Format.GNU),
        {b"last-name": CONTENT},
    ),
    Form(
        "long name without a NUL",
        Header(b"././@LongLink", b"L", 0, size=120, format=Format.GNU).block()
        + padded(b"z" * 120)
        + _file("z" * 100, format=Format.GNU),
        {b"z" * 120: CONTENT},
    ),
    Form(
        "long name with several NULs",
        long_name(b"y" * 120 + bytes(40)) + _file("y" * 100, format=Format.GNU),
        {b"y" * 120: CONTENT},
    ),
    Form(
        "path that is not clean",
        _file(".//unclean/.//./f"),
        {b"unclean/f": CONTENT},
    ),
    Form(
        "v7 header with something behind it",
        _file("seventh", format=Format.V7, patches=((345, b"no/prefix"),)),
        {b"seventh": CONTENT},
    ),
    Form(
        "device numbers of a file",
        _file("devices", patches=((329, b"0000001\0"), (337, b"0000003\0"))),
        {b"devices": CONTENT},
    ),
    Form(
        "directory with a size",
        _header("sized", flag=b"5", mode=0o755, size=4096).block(),
        {b"sized": directory()},
    ),
)
"""Forms that some readers refuse, which is accepted; another tree is not."""


def _foreign(name: str, *records: tuple[bytes, bytes]) -> Form:
    return Form(name, extended(records) + _file("foreign"), {b"foreign": CONTENT})


FOREIGN: Sequence[Form] = (
    _foreign("attribute of macOS", (b"SCHILY.xattr.com.apple.provenance", b"\1\2\0\xd5")),
    _foreign("attribute without a name space", (b"SCHILY.xattr.plain", b"value")),
    _foreign(
        "attributes in libarchive's form",
        (b"LIBARCHIVE.xattr.com.apple.quarantine", b"MDA4MQ"),
        (b"LIBARCHIVE.creationtime", b"1500000000.5"),
        (b"SCHILY.fflags", b"nodump"),
    ),
    _foreign(
        "labels",
        (b"SCHILY.xattr.security.selinux", b"system_u:object_r:nonexistent_t:s0\0"),
        (b"RHT.security.selinux", b"system_u:object_r:nonexistent_t:s0"),
    ),
    _foreign(
        "attributes of Windows",
        (b"MSWINDOWS.rawsd", b"AQAEgBQAAAAkAAAAAAAAADQ="),
        (b"MSWINDOWS.fileattr", b"32"),
    ),
    Form(
        "user attribute of a symlink",
        extended([(b"SCHILY.xattr.user.of", b"a symlink")])
        + _header("foreign", flag=b"2", link=b"to", mode=0o777).block(),
        {b"foreign": symlink("to")},
    ),
)
"""Metadata of other systems that Linux does not support."""
