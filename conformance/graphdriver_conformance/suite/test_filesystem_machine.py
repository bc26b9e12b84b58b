"""FSX-020: the same random calls on a view and on a plain directory, over several layers."""

import os
import shutil
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.host.own_work import own_work
from graphdriver_conformance.host.syscalls import Rename, renameat2
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import make_node, set_times
from graphdriver_conformance.oracle.tree import EPOCH, Tree, directory, file
from graphdriver_conformance.suite.support.differential import plain_directory, result_of
from graphdriver_conformance.suite.support.effort import search

_MOST_LAYERS = 10
_LINKED = file(b"lower", link=b"one")
# Files of each type to start with, in the lowest layer.
_FIRST = Tree.of(
    {
        "a": file(b"lower a", 0o640),
        "b/a": b"lower b/a",
        "b/b/a": b"lower b/b/a",
        "c": "b/a",
        "d": directory(0o2770),
        "d/a": b"lower d/a",
        "d/c": _LINKED,
        "d/d": _LINKED,
    }
)


class _Links(Enum):
    """The effect of a write through one name of a lower file on its other names."""

    LAST = "they show it, from a layer above, too"
    BREAK = "they do not: overlayfs copies up name by name"
    DEPEND = "they show it until another layer is put upon it: overlayfs with index=on"


def _names(machine: "_Machine") -> st.SearchStrategy[bytes]:
    """Return existing names, possible new names, and a few invalid ones."""
    there = sorted(machine.tree)
    directories = [name for name in there if machine.tree[name].is_directory]
    above = st.one_of(st.sampled_from(directories), st.sampled_from(directories + there))
    new = st.tuples(above, st.sampled_from([b"a", b"b", b"c", b"d"]))
    below = new.map(lambda pair: b"/".join(filter(None, pair)))
    return st.one_of(st.sampled_from(there[1:]), below) if there[1:] else below


def _directories(machine: "_Machine") -> st.SearchStrategy[bytes]:
    return st.sampled_from(
        [name for name in sorted(machine.tree) if machine.tree[name].is_directory]
    )


_name = st.runner().flatmap(_names)
_directory = st.runner().flatmap(_directories)
_time = st.integers(1, 99).map(lambda offset: EPOCH + offset)
_content = st.sampled_from([b"", b"one", b"two two", b"x" * 5000])
_flag = st.sampled_from([Rename.REPLACE, Rename.REPLACE, Rename.NOREPLACE, Rename.EXCHANGE])

_CHANGES: Mapping[str, Callable[[bytes], object]] = {
    **{f"chmod {m:o}": partial(os.chmod, mode=m) for m in (0o600, 0o755, 0o4755, 0o1777, 0o2775)},
    "chown": lambda path: os.chown(path, 0, 0, follow_symlinks=False),
    "chown to another": lambda path: os.chown(path, 1000, 1001, follow_symlinks=False),
    "setxattr": lambda path: os.setxattr(path, b"user.a", b"1"),
    "setxattr, longer": lambda path: os.setxattr(path, b"user.a", b"x" * 200),
    "removexattr": lambda path: os.removexattr(path, b"user.a"),
}


class _Machine(RuleBasedStateMachine):
    """A view and a plain directory. Written files get a fixed time, so that times compare."""

    def __init__(self, graphdriver: Subject, base: str, first: Tree, links: _Links) -> None:
        super().__init__()
        graphdriver.start_example()
        self.graphdriver = graphdriver
        self.links = links
        self.calls, self.stride = 0, 4
        self.layers = [base]
        self.plain = plain_directory(graphdriver, first)
        self._stack()

    @initialize(stride=st.sampled_from([4, 2, 8]))
    def begin(self, stride: int) -> None:
        """Choose the number of calls before a remount, and before a new layer."""
        self.stride = stride

    @rule(name=_name, content=_content, time=_time, append=st.booleans())
    def write(self, name: bytes, content: bytes, time: int, append: bool) -> None:
        """Open a file, create it if it is missing, write."""
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0)

        def call(path: bytes) -> int:
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
            try:
                written = os.write(descriptor, content)
                os.utime(descriptor, (time, time))
                return written
            finally:
                os.close(descriptor)

        self._both(call, name)

    @rule(name=_name, size=st.integers(0, 6000), time=_time)
    def truncate(self, name: bytes, size: int, time: int) -> None:
        """Truncate or extend a file."""

        def call(path: bytes) -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                os.ftruncate(descriptor, size)
                os.utime(descriptor, (time, time))
            finally:
                os.close(descriptor)

        self._both(call, name)

    @rule(name=_name, mode=st.sampled_from([0o700, 0o755, 0o1777]))
    def mkdir(self, name: bytes, mode: int) -> None:
        """Make a directory."""
        self._both(lambda path: os.mkdir(path, mode), name)

    @rule(name=_name, to=st.sampled_from([b"a", b"b/a", b"../a", b"nowhere"]), time=_time)
    def symlink(self, name: bytes, to: bytes, time: int) -> None:
        """Make a symlink."""

        def call(path: bytes) -> None:
            os.symlink(to, path)
            os.utime(path, (time, time), follow_symlinks=False)

        self._both(call, name)

    @precondition(lambda self: self.links is not _Links.DEPEND)
    @rule(old=_name, new=_name)
    def link(self, old: bytes, new: bytes) -> None:
        """Add a hard link to a file."""
        self._both(lambda a, b: os.link(a, b, follow_symlinks=False), old, new)

    @rule(name=_name, call=st.sampled_from([os.unlink, os.rmdir]))
    def remove(self, name: bytes, call: Callable[[bytes], None]) -> None:
        """Remove one name."""
        self._both(call, name)

    @rule(name=_directory, again=st.booleans())
    def remove_tree(self, name: bytes, again: bool) -> None:
        """rm -r, and optionally mkdir of the same name, which must then hide the lower entries."""
        below = [one for one in sorted(self.tree, reverse=True) if one.startswith(name + b"/")]
        for one in [*below, name] if name else []:
            self._both(os.rmdir if self.tree[one].is_directory else os.unlink, one)
        if again:
            self._both(os.mkdir, name)

    @rule(old=_name, new=_name, flag=_flag)
    def rename(self, old: bytes, new: bytes, flag: Rename) -> None:
        """Rename, refuse to replace, or exchange."""
        has_directory = any(n in self.tree and self.tree[n].is_directory for n in (old, new))
        may = ("EXDEV",) if has_directory else ()
        group = self.tree[old].link if old in self.tree else b""
        if group and new in self.tree and self.tree[new].link == group:
            may = (*may, "ESTALE")  # two names of one file, where overlayfs stores no origin
        self._both(lambda a, b: renameat2(a, b, flag), old, new, may_refuse=may)

    @rule(name=_name, change=st.sampled_from([*_CHANGES]))
    def change(self, name: bytes, change: str) -> None:
        """Change mode, owner or xattrs."""
        self._both(_CHANGES[change], name)

    @rule(name=_name)
    def read(self, name: bytes) -> None:
        """Read a file, follow a symlink, list a directory."""

        def call(path: bytes) -> object:
            if os.path.isdir(path):
                return sorted(os.listdir(path))
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                return os.read(descriptor, 10_000)
            finally:
                os.close(descriptor)

        self._both(call, name)

    @rule(restart=st.booleans())
    def mount_again(self, restart: bool) -> None:
        """Put and get, or continue with a new driver."""
        if restart and self.graphdriver.claims(Capability.RESTARTABLE):
            self.graphdriver.reopen()
        else:
            self.graphdriver.put(self.layers[-1])
        self.view = self.graphdriver.get(self.layers[-1])

    @rule()
    def stack(self) -> None:
        """Make the layer the lower of a new one."""
        if len(self.layers) < _MOST_LAYERS:
            self.graphdriver.put(self.layers[-1])
            self._stack()

    @invariant()
    def same(self) -> None:
        """Compare everything, and again after a remount if it is due."""
        self.tree = observe(self.plain)
        assert_same_tree(self.tree, observe(self.view), "the view differs from a plain directory")
        if self.calls and self.calls % self.stride == 0:
            if self.calls % (2 * self.stride):
                self.mount_again(False)
            else:
                self.stack()
            assert_same_tree(self.tree, observe(self.view), "after a remount")

    def teardown(self) -> None:
        """Put the view and remove the layers, so that examples do not affect each other."""
        self.graphdriver.put(self.layers[-1])
        for id in reversed(self.layers[1:]):
            self.graphdriver.remove(id)
        with own_work(f"remove {self.plain}"):
            shutil.rmtree(self.plain)

    def _stack(self) -> None:
        if self.links is _Links.BREAK:
            _break_links(self.plain)
        self.layers.append(self.graphdriver.new_layer(self.layers[-1], writable=True))
        self.view = self.graphdriver.get(self.layers[-1])
        self.tree = observe(self.plain)

    def _both(
        self, call: Callable[..., object], *names: bytes, may_refuse: tuple[str, ...] = ()
    ) -> None:
        self.calls += 1

        def below(root: Path) -> object:
            return call(*(os.fsencode(root) + b"/" + name for name in names))

        actual = result_of(below, self.view)
        if actual in may_refuse:
            return
        expected = result_of(below, self.plain)
        assert actual == expected, f"a plain directory returns {expected}, the view {actual}"


def _break_links(root: Path) -> None:
    """Make each name a separate file: overlayfs without index copies up by name."""
    tree = observe(root)
    for name in (one for one in tree if tree[one].link):
        path = os.fsencode(root) + b"/" + name
        os.unlink(path)
        make_node(path, tree[name])
    set_times(tree, root)


def _links_of(graphdriver: Subject) -> _Links:
    """Write through one name of a lower file and read its other name."""
    base = graphdriver.build(Tree.of({"a": _LINKED, "b": _LINKED}))
    layer = graphdriver.new_layer(base, writable=True)
    with graphdriver.view(layer) as root:
        (root / "a").write_bytes(b"written")
        if (root / "b").read_bytes() != b"written":
            return _Links.BREAK
    with graphdriver.view(graphdriver.new_layer(layer)) as root:
        return _Links.LAST if (root / "b").read_bytes() == b"written" else _Links.DEPEND


@verifies("FSX-020")
def test_random_calls(graphdriver: Subject) -> None:
    """Calls have the same results as on a disk, over ten layers and any remounts."""
    links = _links_of(graphdriver)
    # If the content of hard links depends on the layer, no plain directory behaves the same.
    left_out = (b"d/c", b"d/d") if links is _Links.DEPEND else ()
    first = Tree({name: node for name, node in _FIRST.items() if name not in left_out})
    base = graphdriver.build(first)
    run_state_machine_as_test(
        lambda: _Machine(graphdriver, base, first, links),  # type: ignore[arg-type]  # a factory will do
        settings=search(25, stateful_step_count=30),
    )
