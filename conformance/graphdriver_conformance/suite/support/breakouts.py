"""Archives that try to write outside their layer: to a directory, or to another layer.

The cases of moby's pkg/archive and chrootarchive, containerd's TestBreakouts, and later CVEs, and
cases that they omit. Each is harmless if it is refused, confined to the layer, or without effect.
"""

from collections.abc import Mapping, Sequence

from graphdriver_conformance.oracle.archive import OPAQUE, LayerEntry, entry_of, whiteout
from graphdriver_conformance.oracle.tree import Node, NodeKind, directory, file, symlink

__all__ = ["KINDS", "Breakout", "breakouts", "outside"]

Breakout = Sequence[LayerEntry]
"""The members of an archive; often the last one follows links of the earlier ones."""

KINDS = ("names", "symlinks", "hard links", "chains", "replacements", "whiteouts", "layers")
"""The keys of what `breakouts` returns."""

_NEW = file(b"x")
_FIFO = Node(NodeKind.FIFO, 0o600)


def outside(path: str) -> str:
    """Return a path in a layer that resolves to an absolute path, for a layer of any depth."""
    return "../" * 24 + path.lstrip("/")


def breakouts(victim: str, layer: str) -> Mapping[str, Mapping[str, Breakout]]:
    """Return archives that try to write `hello` in the directory `victim`, or in a layer, by kind.

    `victim` is an absolute path without symlinks, `layer` the id of another layer.
    """
    out = outside(victim)
    archives = (
        _names(victim, out),
        _symlinks(victim, out),
        _hard_links(victim, out),
        _chains(victim, out),
        _replacements(out),
        _whiteouts(victim, out),
        _layers(layer),
    )
    return dict(zip(KINDS, archives, strict=True))


def _pax(entry: LayerEntry, **records: str) -> LayerEntry:
    return LayerEntry(entry.name, entry.node, entry.hardlink, tuple(records.items()))


def _names(victim: str, out: str) -> dict[str, Breakout]:
    return {
        "one level up": [entry_of("../victim/new", _NEW)],
        "many levels up": [entry_of(f"{out}/new", _NEW)],
        "over a file": [entry_of(f"{out}/hello", _NEW)],
        "up in the middle": [entry_of("a/../../victim/new", _NEW)],
        "up after its directory": [entry_of("a", directory()), entry_of(f"a/{out}/new", _NEW)],
        "dots before": [entry_of(f"./{out}/new", _NEW)],
        "dots between": [entry_of(f".././{out}/./new", _NEW)],
        "absolute": [entry_of(f"{victim}/new", _NEW)],
        "absolute, two slashes": [entry_of(f"/{victim}/new", _NEW)],
        "absolute, up": [entry_of(f"/{out}/new", _NEW)],
        "directory": [entry_of(f"{out}/new", directory(0o777))],
        "existing directory": [entry_of(f"{out}/dir", directory(0o777))],
        "symlink": [entry_of(f"{out}/new", symlink("hello"))],
        "fifo": [entry_of(f"{out}/new", _FIFO)],
        "the layer's parent": [entry_of("..", directory(0o777)), entry_of("../victim/new", _NEW)],
        "pax path": [_pax(entry_of("harmless", _NEW), path=f"{out}/new")],
        "pax path with a zero": [_pax(entry_of("harmless", _NEW), path=f"a\0/{out}/new")],
        "longer than ustar has": [entry_of(f"{'d/' * 60}{'../' * 60}{out}/new", _NEW)],
    }


def _symlinks(victim: str, out: str) -> dict[str, Breakout]:
    link = entry_of("s", symlink(out))
    below_root = entry_of("s/" + victim.lstrip("/") + "/new", _NEW)
    return {
        "through it": [link, entry_of("s/new", _NEW)],
        "through it, over a file": [link, entry_of("s/hello", _NEW)],
        "through it, directory": [link, entry_of("s/new", directory())],
        "through it, implied directory": [link, entry_of("s/new/f", _NEW)],
        "through it, symlink": [link, entry_of("s/new", symlink("hello"))],
        "through it, fifo": [link, entry_of("s/new", _FIFO)],
        "through it and up": [entry_of("s", symlink(f"{out}/dir")), entry_of("s/../new", _NEW)],
        "absolute": [entry_of("s", symlink(victim)), entry_of("s/new", _NEW)],
        "to the root": [entry_of("s", symlink("/")), below_root],
        "through a process": [entry_of("s", symlink("/proc/self/root")), below_root],
        "pax linkpath": [_pax(entry_of("s", symlink("a")), linkpath=out), entry_of("s/new", _NEW)],
        "the layer's root": [entry_of(".", symlink(victim)), entry_of("new", _NEW)],
        "the layer's root, absolute": [entry_of("/", symlink(victim)), entry_of("/new", _NEW)],
    }


def _hard_links(victim: str, out: str) -> dict[str, Breakout]:
    link, over, at = entry_of("s", symlink(out)), entry_of("h", _NEW), f"{out}/hello".encode()
    return {
        "out": [entry_of("h", file(), at), over],
        "absolute": [entry_of("h", file(), f"{victim}/hello".encode()), over],
        "up in the middle": [entry_of("a", directory()), entry_of("h", file(), b"a/" + at), over],
        "through a symlink": [link, entry_of("h", file(), b"s/hello"), over],
        "to a symlink": [entry_of("s", symlink(f"{out}/hello")), entry_of("h", file(), b"s"), over],
        "to a symlink of a directory": [link, entry_of("h", file(), b"s"), entry_of("h/new", _NEW)],
        "named outside": [entry_of("f", _NEW), entry_of(f"{out}/new", file(), b"f")],
        "named through a symlink": [entry_of("f", _NEW), link, entry_of("s/new", file(), b"f")],
        "pax linkpath": [_pax(entry_of("h", file(), b"a"), linkpath=at.decode()), over],
        "of aufs": [entry_of(".wh..wh.plnk/1", symlink(f"{out}/hello")), _aufs(b"1"), over],
        "of aufs, out": [_aufs(at), over],
    }


def _aufs(name: bytes) -> LayerEntry:
    """Return a hard link as aufs wrote them; Docker still looks up its target elsewhere."""
    return entry_of("h", file(), b".wh..wh.plnk/" + name)


def _chains(victim: str, out: str) -> dict[str, Breakout]:
    new, up = entry_of("s/new", _NEW), symlink("..")
    ascents = [entry_of("u/" * level + "u", up) for level in range(4)]
    return {
        "two symlinks": [entry_of("s", symlink("t")), entry_of("t", symlink(out)), new],
        "two symlinks, the other first": [
            *(entry_of("t", symlink(out)), entry_of("s", symlink("t"))),
            new,
        ],
        "symlink in the target of a symlink": [
            *(entry_of("d/t", symlink(victim)), entry_of("s", symlink("d/t"))),
            new,
        ],
        "up by symlinks below one another": [*ascents, entry_of("u/u/u/u/victim/new", _NEW)],
        "up by one symlink": [entry_of("u", up), entry_of("u/victim/new", _NEW)],
        "symlink, hard link, file": [
            *(entry_of("t", symlink(out)), entry_of("s", file(), b"t")),
            new,
        ],
        "loop": [entry_of("s", symlink("t")), entry_of("t", symlink("s")), new],
    }


def _replacements(out: str) -> dict[str, Breakout]:
    link, inside = entry_of("s", symlink(out)), entry_of("d/s", symlink(out))
    new, gone = entry_of("s/new", _NEW), entry_of("d", file())
    return {
        "file over a symlink": [entry_of("s", symlink(f"{out}/hello")), entry_of("s", _NEW)],
        "fifo over a symlink": [entry_of("s", symlink(f"{out}/hello")), entry_of("s", _FIFO)],
        "directory over a symlink": [link, entry_of("s", directory(0o777)), new],
        "directory with a slash": [link, entry_of("s/", directory(0o777)), new],
        "symlink over a directory": [
            entry_of("s", directory()),
            entry_of("s/a", file()),
            link,
            new,
        ],
        "file over a directory with a symlink": [entry_of("d", directory()), inside, gone],
    }


def _whiteouts(victim: str, out: str) -> dict[str, Breakout]:
    link, empty = entry_of("s", symlink(out)), file()
    return {
        "through a symlink": [link, whiteout("s/hello")],
        "through a symlink, of a directory": [link, whiteout("s/dir")],
        "through two symlinks": [
            *(entry_of("t", symlink(out)), entry_of("s", symlink("t"))),
            whiteout("s/hello"),
        ],
        "of a symlink": [link, whiteout("s")],
        "of a directory with a symlink": [entry_of("d/s", symlink(out)), whiteout("d")],
        "with dots": [whiteout("../victim/hello")],
        "with many dots": [whiteout(f"{out}/hello")],
        "absolute": [whiteout(f"{victim}/hello")],
        "of the layer": [entry_of(".wh..", empty)],
        "of the layer's parent": [entry_of(".wh...", empty)],
        "of a directory's parent": [entry_of("d", directory()), entry_of("d/.wh...", empty)],
        "opaque, through a symlink": [link, LayerEntry(b"s/" + OPAQUE, empty)],
        "opaque, with dots": [LayerEntry(f"{out}/".encode() + OPAQUE, empty)],
        "opaque, absolute": [LayerEntry(f"{victim}/".encode() + OPAQUE, empty)],
        "symlink as whiteout": [entry_of(".wh.s", symlink(f"{out}/hello"))],
        "symlink as opaque": [LayerEntry(OPAQUE, symlink(f"{out}/hello"))],
    }


def _layers(layer: str) -> dict[str, Breakout]:
    """The paths of other layers in overlay2, vfs and btrfs, relative to this one."""
    found: dict[str, Breakout] = {}
    for place in (f"../../{layer}/diff", f"../{layer}"):
        found[f"name, {place}"] = [entry_of(f"{place}/hello", _NEW)]
        found[f"symlink, {place}"] = [entry_of("s", symlink(place)), entry_of("s/hello", _NEW)]
        target = f"{place}/hello".encode()
        found[f"hard link, {place}"] = [entry_of("h", file(), target), entry_of("h", _NEW)]
        found[f"whiteout, {place}"] = [whiteout(f"{place}/hello")]
    return found
