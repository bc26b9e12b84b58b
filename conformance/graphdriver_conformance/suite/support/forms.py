"""Members as tar programs write them, each with the nodes that it stands for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graphdriver_conformance.oracle.archive import Dialect, LayerEntry, Long, build_member
from graphdriver_conformance.oracle.tar_blocks import (
    Format,
    Header,
    extended,
    long_name,
    padded,
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
"""What Docker, containerd and containers-storage read."""


@dataclass(frozen=True, slots=True)
class Form:
    """Blocks of one or more members, and the nodes they make of an empty layer, by name."""

    name: str
    blocks: bytes
    nodes: Mapping[bytes, Node] = field(default_factory=dict)


def nodes_of(forms: Iterable[Form]) -> Tree:
    """Return the tree that the forms make, with the directories that they imply."""
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
        entries.append(LayerEntry(top + link, file(), top + target))
        nodes[top + link] = nodes[top + target]
    return Form(name, b"".join(build_member(entry, dialect) for entry in entries), nodes)


def _file(name: str, content: bytes = b"content", *, ahead: bytes = b"", **fields: object) -> bytes:
    return ahead + _header(name, size=len(content), **fields).block() + padded(content)


def _header(name: str, **fields: object) -> Header:
    return Header(name.encode(), **{"mtime": EPOCH, **fields})  # type: ignore[arg-type]


def _pax(**records: str) -> bytes:
    return extended([(key.encode(), value.encode()) for key, value in records.items()])


CONTENT = file(b"content")

COMMON: Sequence[Form] = (
    *(_sample(name, dialect) for name, dialect in DIALECTS.items()),
    Form("global header", extended([(b"comment", b"made by hand")], b"g")),
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
"""What every engine reads: refusing it keeps an image from being pulled."""

ROOTS: Sequence[Form] = (
    Form("./", _header("./", flag=b"5", mode=0o755).block()),
    Form("/", _header("/", flag=b"5", mode=0o755).block()),
    Form(".", _header(".", flag=b"5", mode=0o755).block()),
)
"""The root as a member."""

# A name of 120 bytes whose first hundred end in a slash.
_CUT = "c" * 99 + "/" + "c" * 20
_DIRECTORY = "l" * 120 + "/"

_SEGMENTS = ((0, 5), (4096, 3), (8192, 0))
_DATA = b"first" + b"end"
_SPARSE = file(b"first" + bytes(4091) + b"end" + bytes(4093))


def _gnu_sparse(name: str) -> bytes:
    fields = b"".join(b"%011o\0%011o\0" % segment for segment in _SEGMENTS)
    patches = ((386, fields), (483, b"%011o\0" % 8192))
    return _file(name, _DATA, flag=b"S", format=Format.GNU, patches=patches)


def _long_gnu_sparse(name: str) -> Form:
    """Return one whose map has more segments than a header has room for, and than a block."""
    count = 30
    pairs = [b"%011o\0%011o\0" % (one * 512, 3) for one in range(count)]
    head = b"".join(pairs[:4])
    blocks = [b"".join(pairs[4:25]) + b"\1", b"".join(pairs[25:])]
    data = b"".join(b"%03d" % one for one in range(count))
    patches = ((386, head), (482, b"\1"), (483, b"%011o\0" % (count * 512)))
    header = _header(name, flag=b"S", format=Format.GNU, size=len(data), patches=patches)
    rest = b"".join(block.ljust(512, b"\0") for block in blocks)
    content = b"".join((b"%03d" % one).ljust(512, b"\0") for one in range(count))
    return Form("GNU sparse, long map", header.block() + rest + padded(data), _node(name, content))


def _node(name: str, content: bytes) -> dict[bytes, Node]:
    return {name.encode(): file(content)}


SPARSE: Sequence[Form] = (
    Form("GNU sparse", _gnu_sparse("sparse-gnu"), {b"sparse-gnu": _SPARSE}),
    _long_gnu_sparse("sparse-gnu-long"),
    Form(
        "PAX sparse 0.0",
        extended(
            [
                (b"GNU.sparse.size", b"8192"),
                (b"GNU.sparse.numblocks", b"3"),
                *(
                    (b"GNU.sparse." + key, b"%d" % value)
                    for segment in _SEGMENTS
                    for key, value in zip((b"offset", b"numbytes"), segment, strict=True)
                ),
            ]
        )
        + _file("sparse-0.0", _DATA),
        {b"sparse-0.0": _SPARSE},
    ),
    Form(
        "PAX sparse 0.1",
        extended(
            [
                (b"GNU.sparse.size", b"8192"),
                (b"GNU.sparse.numblocks", b"3"),
                (b"GNU.sparse.map", b",".join(b"%d,%d" % one for one in _SEGMENTS)),
                (b"GNU.sparse.name", b"sparse-0.1"),
            ]
        )
        + _file("GNUSparseFile.1/sparse", _DATA),
        {b"sparse-0.1": _SPARSE},
    ),
    Form(
        "PAX sparse 1.0",
        extended(
            [
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"sparse-1.0"),
                (b"GNU.sparse.realsize", b"8192"),
            ]
        )
        + _file("GNUSparseFile.1/sparse", sparse_map(_SEGMENTS) + _DATA),
        {b"sparse-1.0": _SPARSE},
    ),
)
"""A file with a hole in the middle and one at the end, as GNU tar -S writes it."""

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
        "record said twice",
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
"""What some readers refuse: that is all right, another tree is not."""


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
"""What other systems say of a file, and Linux has no place for."""
