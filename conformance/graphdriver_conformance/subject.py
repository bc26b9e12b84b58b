"""One driver under test, in a home of its own: what the tests of the suite talk to.

Its verbs are the driver's; each call is written down, so that a violation can show the program that
led to it.
"""

import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from _pytest.outcomes import Skipped
from hypothesis import currently_in_test_context, reject

from graphdriver.contract import Capability, Change, Driver, IDMap
from graphdriver.errors import DriverError
from graphdriver_conformance.adapters import NotTold
from graphdriver_conformance.drivers import DriverSource
from graphdriver_conformance.environment import Environment, mounts_below
from graphdriver_conformance.oracle.observe import observe
from graphdriver_conformance.oracle.plant import rebuild
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.program import Program, shown_call, shown_edits, shown_result
from graphdriver_conformance.repro.recorder import Recorder, unrecorded

__all__ = ["NotClaimed", "NotProvable", "NotRefused", "Subject"]

_SHORT_NAME = 250


class NotClaimed(Skipped):
    """The driver does not claim what this test is about."""


class NotProvable(Skipped):
    """This environment cannot show it; the message says why and what would."""


class NotRefused(AssertionError):
    """A call that had to fail did not: `called` is the call, `came` what it did instead."""

    def __init__(self, called: str, came: str) -> None:
        super().__init__(f"{called} has to be an error, but {came}")
        self.called = called
        self.came = came


class Subject:
    """The driver that `source` makes in `home`, its verbs, and what tests need around them."""

    def __init__(
        self,
        source: DriverSource,
        home: Path,
        options: tuple[str, ...],
        environment: Environment,
        recorder: Recorder | None = None,
    ) -> None:
        self.source = source
        self.recorder = recorder
        self.home = home
        self.environment = environment
        self.program = Program()
        self.notes: list[str] = []
        self.escaped: BaseException | None = None
        self.examples = 0
        self.unclaimed = ""
        self._options = options
        self._numbers = itertools.count()
        self._parents: dict[str, str] = {}
        self._others: list[Driver] = []
        self.driver: Driver = self._made(home, options)
        self._own_mounts = mounts_below(home)

    # The verbs.

    def create(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Driver.create."""
        self._call("create", id, parent, mount_label, storage_opt)
        self._parents[id] = parent

    def create_read_write(
        self,
        id: str,
        parent: str = "",
        mount_label: str = "",
        storage_opt: Mapping[str, str] | None = None,
    ) -> None:
        """Driver.create_read_write."""
        self._call("create_read_write", id, parent, mount_label, storage_opt)
        self._parents[id] = parent

    def remove(self, id: str) -> None:
        """Driver.remove."""
        self._call("remove", id)

    def get(self, id: str, mount_label: str = "") -> Path:
        """Driver.get."""
        return Path(self._call("get", id, mount_label))

    def put(self, id: str) -> None:
        """Driver.put."""
        self._call("put", id)

    def exists(self, id: str) -> bool:
        """Driver.exists."""
        return bool(self._call("exists", id))

    def status(self) -> list[tuple[str, str]]:
        """Driver.status."""
        return list(self._call("status"))

    def get_metadata(self, id: str) -> dict[str, str]:
        """Driver.get_metadata."""
        return dict(self._call("get_metadata", id) or {})

    def cleanup(self) -> None:
        """Driver.cleanup."""
        self._call("cleanup")

    def diff(self, id: str, parent: str = "") -> BinaryIO:
        """Driver.diff; the caller closes the stream."""
        stream: BinaryIO = self._call("diff", id, parent)
        return stream

    def changes(self, id: str, parent: str = "") -> list[Change]:
        """Driver.changes; ends an example, or a test, whose answer the way to it cannot carry."""
        try:
            return list(self._call("changes", id, parent))
        except NotTold as error:
            self.escaped = None
            if currently_in_test_context():
                reject()
            raise NotProvable(str(error)) from None

    def _check_names(self, tree: Tree) -> None:
        """End the test, or the example, where names are longer than the driver claims to take."""
        if self.claims(Capability.LONG_NAMES) or not any(map(_is_long, tree)):
            return
        if currently_in_test_context():
            reject()
        self.not_claimed("the driver does not claim long_names")

    def can_tell(self, tree: Tree) -> bool:
        """Say whether `changes` can name all paths of a tree: over some ways only texts go."""
        return "plugin" not in self.source.offers or all(map(_is_text, tree))

    def apply_diff(self, id: str, parent: str, diff: bytes | BinaryIO) -> int:
        """Driver.apply_diff."""
        stream = io.BytesIO(diff) if isinstance(diff, bytes) else diff
        return int(self._call("apply_diff", id, parent, stream))

    def diff_size(self, id: str, parent: str = "") -> int:
        """Driver.diff_size."""
        return int(self._call("diff_size", id, parent))

    # What tests need around them.

    def claims(self, capability: Capability) -> bool:
        """Say whether the driver claims a capability; without a declaration it claims all."""
        declared = getattr(self.driver, "capabilities", None)
        return declared is None or capability in declared

    @property
    def layer_limit(self) -> int:
        """How many lower layers the driver allows, where it claims a limit."""
        return int(getattr(self.driver, "layer_limit", 128))

    @property
    def root_mode(self) -> int:
        """The mode of a new layer's root: 0755, unless the driver declares another."""
        return int(getattr(self.driver, "root_mode", 0o755))

    def parent_of(self, id: str) -> str:
        """Return the parent a layer was made on, "" for none; Docker names it in apply_diff."""
        return self._parents.get(id, "")

    def new_id(self, hint: str = "layer") -> str:
        """Return an id that this home does not have."""
        return f"{hint}-{next(self._numbers)}"

    def new_layer(self, parent: str = "", *, writable: bool = False) -> str:
        """Make an empty layer on `parent` and return its id."""
        id = self.new_id()
        (self.create_read_write if writable else self.create)(id, parent)
        return id

    def build(self, tree: Tree, parent: str = "") -> str:
        """Make a layer on `parent` whose view is made into `tree` by a container's calls."""
        id = self.new_layer(parent, writable=True)
        self.fill(id, tree)
        return id

    def fill(self, id: str, tree: Tree) -> None:
        """Turn what the layer's view shows into `tree`."""
        self._check_names(tree)
        with self.program.folded(f"edit({id!r})") as step, self.view(id) as root:
            old = observe(root)
            step.edits = shown_edits(old, tree)
            rebuild(old, tree, root)

    @contextmanager
    def view(self, id: str, mount_label: str = "") -> Iterator[Path]:
        """Get a layer for as long as the block runs, then put it."""
        root = self.get(id, mount_label)
        try:
            yield root
        finally:
            self.put(id)

    def tree(self, id: str) -> Tree:
        """Return what the layer's view shows."""
        with self.program.folded(f"look({id!r})"), self.view(id) as root:
            return observe(root)

    def diff_bytes(self, id: str, parent: str = "") -> bytes:
        """Return the whole archive."""
        with self.diff(id, parent) as stream:
            return stream.read()

    def refuses(self, verb: str, *arguments: object) -> DriverError | OSError:
        """Call a verb that has to fail, and return its error; a stream is read to its end."""
        try:
            result = self._call(verb, *arguments)
            came = f"it returned {result!r}"
            if verb == "diff":
                with result as stream:
                    came = f"it returned a stream of {len(stream.read())} bytes"
        except (DriverError, OSError) as error:
            self.escaped = None
            return error
        raise NotRefused(shown_call(verb, arguments), came)

    def open_another(
        self,
        home: Path | None = None,
        options: Sequence[str] | None = None,
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
    ) -> Driver:
        """Return one more driver, on the same home unless another is given."""
        chosen = self._options if options is None else tuple(options)
        where = home or self.home
        shown = "HOME" if where == self.home else str(where)
        self.program.line(f"another = init({shown}, {list(chosen)!r})")
        driver = self._made(where, chosen, uid_maps, gid_maps, is_main=False)
        self._others.append(driver)
        return driver

    def use(self, driver: Driver) -> None:
        """Let the verbs go to another driver from now on."""
        self._others.append(self.driver)
        self.driver = driver

    def reopen(self, *, cleanup: bool = True) -> None:
        """Go on with a fresh driver on the same home, as after a restart of the daemon.

        A driver in a process of its own gets a new one; without `cleanup` the old one is killed.
        """
        if cleanup:
            self.cleanup()
        self.source.keeper.end(unrecorded(self.driver), killed=not cleanup)
        self.program.line("driver = init(HOME)")
        self.driver = self._made(self.home, self._options)

    @property
    def process(self) -> int:
        """The id of the process that the driver runs in; our own for most."""
        return self.source.keeper.process_of(unrecorded(self.driver))

    def mounts(self) -> list[str]:
        """Return what is mounted below the home: point, type and options.

        Without what Init mounted: containers-storage, as Docker's overlay2 of old, binds its home
        onto itself to make it private. After cleanup that has to be gone as well, see close.
        """
        found = [row for row in mounts_below(self.home) if row not in self._own_mounts]
        if self.recorder:
            self.recorder.saw_mounts(len(found) + len(self._own_mounts))
        return found

    def not_provable(self, reason: str) -> NoReturn:
        """End the test: this environment cannot show it."""
        raise NotProvable(reason)

    def not_claimed(self, reason: str) -> NoReturn:
        """End the test: the driver does not claim it."""
        raise NotClaimed(reason)

    def note(self, text: str) -> None:
        """Add a line that is shown with a violation."""
        self.notes.append(text)

    def start_example(self) -> None:
        """Forget the program so far: a new example begins."""
        self.program.clear()
        self.notes.clear()
        self.examples += 1
        if self.recorder:
            self.recorder.start_example()

    def close(self) -> None:
        """Clean up; AssertionError when the driver leaves mounts behind."""
        made = (self.driver, *self._others)
        try:
            for driver in made:
                driver.cleanup()
        finally:
            for driver in made:
                self.source.keeper.release(unrecorded(driver))
        left = mounts_below(self.home)
        if self.recorder:
            self.recorder.saw_mounts(len(left))
        assert not left, f"after cleanup() {len(left)} mount(s) are left below the home: {left[:3]}"

    def _made(
        self,
        home: Path,
        options: tuple[str, ...],
        uid_maps: Sequence[IDMap] = (),
        gid_maps: Sequence[IDMap] = (),
        *,
        is_main: bool = True,
    ) -> Driver:
        if self.recorder is None:
            return self.source.factory(home, options, uid_maps, gid_maps)
        given = {
            "home": os.path.relpath(home, self.home.parent),
            "options": options,
            "uid_maps": list(uid_maps),
            "gid_maps": list(gid_maps),
        }
        driver: Driver = self.recorder.made(
            {name: value for name, value in given.items() if value},
            lambda: self.source.factory(home, options, uid_maps, gid_maps),
            is_main=is_main,
        )
        return driver

    def _call(self, verb: str, *arguments: object) -> Any:
        step = self.program.call(verb, arguments)
        try:
            result = getattr(self.driver, verb)(*arguments)
        except Exception as error:
            step.came = f"raises {type(error).__name__}"
            self.escaped = error
            raise
        step.came = shown_result(result)
        return result


def _is_long(name: bytes) -> bool:
    return any(len(part) > _SHORT_NAME for part in name.split(b"/"))


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
