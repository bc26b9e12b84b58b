"""FSX-004 to FSX-007, FSX-016: operations on names, as in a plain directory."""

import itertools
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.syscalls import (
    CLONE_FS,
    DirectoryStream,
    Rename,
    in_a_thread_of_its_own,
    renameat2,
    unshare,
)
from graphdriver_conformance.oracle.compare import Aspect
from graphdriver_conformance.oracle.tree import Node, Tree, directory, file
from graphdriver_conformance.suite.support.differential import (
    Before,
    Call,
    Case,
    assert_calls_agree,
    some,
)
from graphdriver_conformance.suite.support.effort import scaled
from graphdriver_conformance.suite.support.names import assert_same_names

IMAGE = Tree.of({"d/a": b"a", "d/b": b"b", "top": b"top"})


def _one_after_another(*calls: Call) -> Call:
    return lambda root: [call(root) for call in calls]


# Each type of file, with x in place of its name.
_THINGS: Mapping[str, Before] = {
    "nothing": {},
    "a file": {"x": b"content"},
    "a symlink": {"x": "other"},
    "a broken symlink": {"x": "nowhere"},
    "an empty directory": {"x": directory(0o750)},
    "a full directory": {"x/f": b"inside"},
}
# Created by the layer itself, in the directory of the calls, before the call.
_FRESH: Mapping[str, Call] = {
    "a new file": lambda path: path.write_bytes(b"new"),
    "a new directory": lambda path: path.mkdir(),
    "a deleted directory": _one_after_another(os.mkdir, os.rmdir),
}


def _at(name: str, things: Before) -> Before:
    """Create a file named x as `name` instead."""
    return {name + str(key)[1:]: node for key, node in things.items()}


def _two_names(call: str) -> Call:
    """Return a call with the names `from` and `to`."""

    def run(root: Path) -> object:
        old, new = root / "from", root / "to"
        if call == "link":
            os.link(old, new, follow_symlinks=False)
        else:
            renameat2(old, new, Rename[call])
        return sorted(os.listdir(root))

    return run


def _in(name: str, call: Call) -> Call:
    return lambda root: call(root / name)


def _is_directory(things: Before) -> bool:
    return any("/" in str(name) or isinstance(n, Node) for name, n in things.items())


def _renames() -> dict[str, Case]:
    """Lower and new files as the source, over lower and new files as the target."""
    cases: dict[str, Case] = {}
    for call in ("link", "REPLACE", "NOREPLACE", "EXCHANGE"):
        for (what, old), (onto, new) in itertools.product(_THINGS.items(), _THINGS.items()):
            may = ("EXDEV",) if _is_directory(old) or _is_directory(new) else ()
            before = {**_at("from", old), **_at("to", new), "other": b"o"}
            cases[f"{call} {what} onto {onto}"] = Case(_two_names(call), before, may)
        for (what, make), (onto, new) in itertools.product(_FRESH.items(), _THINGS.items()):
            may = ("EXDEV",) if call == "EXCHANGE" and _is_directory(new) else ()
            before = {**_at("to", new), "other": b"o"}
            case = Case(_two_names(call), before, may, _in("from", make))
            cases[f"{call} {what} onto {onto}"] = case
    return cases


def _removals() -> dict[str, Case]:
    calls: Mapping[str, Call] = {
        "unlink": os.unlink,
        "rmdir": os.rmdir,
        "mkdir": os.mkdir,
        "symlink": lambda path: path.symlink_to("t"),
        "mknod": os.mkfifo,
        "readlink": os.readlink,
        "unlink and mkdir of": _one_after_another(os.unlink, os.mkdir),
        "rmdir and mknod of": _one_after_another(os.rmdir, os.mkfifo),
        "listing of": lambda path: sorted(os.listdir(path)),
    }
    return {
        f"{name} {what}": Case(_in("x", call), {**things, "other": b"o"})
        for (name, call), (what, things) in itertools.product(calls.items(), _THINGS.items())
    }


@verifies("FSX-004")
def test_names_are_linked_renamed_and_removed(graphdriver: Subject) -> None:
    """Package managers write a new file and rename it; on EXDEV of directories mv(1) copies."""
    special = {
        "rename into itself": Case(
            lambda root: os.rename(root / "d", root / "d/e"), {"d/f": b""}, ("EXDEV",)
        ),
        # If overlayfs cannot store a file's origin, as in a user namespace, its two names are two
        # files: the rename, which should have no effect, fails with ESTALE.
        "rename a link over its other name": Case(
            lambda root: os.rename(root / "g", root / "f"),
            {"f": b"1"},
            ("ESTALE",),
            lambda root: os.link(root / "f", root / "g"),
        ),
    }
    cases = {**some({**_renames(), **_removals()}), **special}
    assert_calls_agree(graphdriver, cases, Aspect.MODE | Aspect.OWNER | Aspect.CONTENT)


@verifies("FSX-005")
def test_working_directory_survives_a_failed_rmdir(graphdriver: Subject) -> None:
    """A shell's current directory is being removed (moby #19082)."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer) as root:

        def remove_cwd() -> str:
            unshare(CLONE_FS)
            os.chdir(root / "d")
            try:
                os.rmdir(root / "d")
            except OSError:
                return os.getcwd()
            return "rmdir removed a directory that has files"

        assert in_a_thread_of_its_own(remove_cwd) == str(root / "d")


@verifies("FSX-006")
def test_inode_number_stays(graphdriver: Subject) -> None:
    """After copy-up and after put: tail -F and backups use the inode number."""
    layer = graphdriver.new_layer(graphdriver.build(IMAGE), writable=True)
    with graphdriver.view(layer) as root:
        names = [root / "top", root / "d/a", root / "d"]
        before = [path.lstat().st_ino for path in names]
        for path in names:
            path.chmod(0o700)
        (root / "top").write_bytes(b"written")
        assert [path.lstat().st_ino for path in names] == before, "copy-up changed st_ino"

    with graphdriver.view(layer) as root:
        after = [(root / name).lstat().st_ino for name in ("top", "d/a", "d")]
    if before != after and graphdriver.environment.facts["userns"] == "true":
        graphdriver.not_provable(
            "overlayfs finds the file that another was copied from with CAP_DAC_READ_SEARCH over "
            "the host only; run as root"
        )
    assert after == before, "a remount changed st_ino"


@verifies("FSX-007")
def test_link_counts_are_possible(graphdriver: Subject) -> None:
    """After a write through one of three names, no link count is 0 or above 3."""
    linked = file(b"x", link=b"a")
    base = graphdriver.build(Tree.of({"a": linked, "b": linked, "c": linked}))
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        (root / "a").write_bytes(b"written")
        left = ["a", "b", "c"]
        while left:
            counts = {name: (root / name).lstat().st_nlink for name in left}
            odd = {name: count for name, count in counts.items() if not 1 <= count <= 3}
            assert not odd, f"with {left} there, link counts are {odd}"
            os.unlink(root / left.pop())
        assert os.listdir(root) == []


@verifies("FSX-016")
def test_seeking_in_a_large_directory(graphdriver: Subject) -> None:
    """File servers continue a listing at the client's position (telldir, seekdir)."""
    count = scaled(600)
    layer = graphdriver.new_layer(
        graphdriver.build(Tree.of({f"d/low{n}": b"" for n in range(count)})), writable=True
    )
    with graphdriver.view(layer) as root:
        for number in range(count):
            (root / "d" / f"up{number}").touch()
            if number % 3 == 0:
                os.unlink(root / "d" / f"low{number}")
        wanted = {path.name.encode() for path in (root / "d").iterdir()}
        listed = _listed_with_seeks(root / "d", every=count // 3)

    assert len(wanted) == count + count - len(range(0, count, 3)), "the number of names in d"
    assert_same_names({b".", b"..", *wanted}, listed, "listed by readdir(3)")
    twice = sorted(name for name, times in Counter(listed).items() if times > 1)
    assert not twice, f"listed twice: {twice[:9]}"


def _listed_with_seeks(path: Path, every: int) -> list[bytes]:
    """List by readdir(3), with occasional jumps to an earlier position and back."""
    places: list[int] = []
    names: list[bytes] = []
    with DirectoryStream(path) as stream:
        while True:
            places.append(stream.tell())
            name = stream.next()
            if name is None:
                return names
            names.append(name)
            if len(names) % every == 0:
                here, back = stream.tell(), len(names) // 2
                stream.seek(places[back])
                again = stream.next()
                assert again == names[back], f"after seekdir {again!r} is next, not {names[back]!r}"
                stream.seek(here)
