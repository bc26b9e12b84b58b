"""Records the calls of a test to its drivers."""

import io
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphdriver.contract import Driver
from graphdriver_conformance.repro import observe
from graphdriver_conformance.repro.edits import Edit, edits_between
from graphdriver_conformance.repro.replay import RAISES

__all__ = ["RecordedCall", "Recorder", "unrecorded"]

_VERBS = frozenset(
    {"create", "create_read_write", "remove", "get", "put", "exists", "status", "get_metadata"}
    | {"cleanup", "diff", "changes", "apply_diff", "diff_size"}
)


@dataclass(slots=True)
class RecordedCall:
    """A verb of driver number `driver` with its result, or edits in a view."""

    verb: str
    arguments: tuple[Any, ...]
    driver: int = 0
    observed: object = None
    edits: list[Edit] = field(default_factory=list)

    @property
    def layer(self) -> str:
        """The id of its layer, "" if it has none."""
        return str(self.arguments[0]) if self.arguments and self.verb != "init" else ""


class Recorder:
    """The steps of a test, in order; `past` are the steps of its earlier examples.

    `is_whole` is False if the test did more than these steps.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.steps: list[RecordedCall] = []
        self.past: list[RecordedCall] = []
        self.is_whole = True
        self._thread = threading.get_ident()
        self._views: dict[str, tuple[Path, observe.Tree, int]] = {}
        self._drivers = 0
        self._is_over = False
        self._umask = 0o22
        self._mounts_before = 0
        self._names_before = observe.home_names(place)

    def made(self, arguments: Mapping[str, Any], make: Any, *, is_main: bool) -> Any:
        """Create a driver, and return it with the recorder around it."""
        number = 0
        if not is_main:
            self._drivers += 1
            number = self._drivers
        given = tuple(sorted(arguments.items()))
        step = self._begin("init", given, number)
        try:
            driver = make()
        except Exception:
            step.observed = RAISES
            raise
        if is_main and not self.steps[1:] and not self.past:
            self._start()
        return _Recorded(driver, self, number)

    def call(self, driver: Driver, number: int, verb: str, arguments: tuple[Any, ...]) -> Any:
        """Call a verb, and record its result."""
        given = [_Read(one) if hasattr(one, "read") else one for one in arguments]
        step = self._begin(verb, arguments, number)
        try:
            answer = getattr(driver, verb)(*given)
        except Exception:
            step.observed = RAISES
            raise
        finally:
            step.arguments = tuple(one.data() if isinstance(one, _Read) else one for one in given)
            if verb == "put":
                self._release(step.layer)
            self._observe_views()
        if verb == "diff":
            return _Watched(answer, step)
        step.observed = observe.observed_answer(verb, answer, self.place)
        if verb == "get":
            self._hold(step.layer, Path(answer))
        return answer

    def record_mounts(self, count: int) -> None:
        """Record the number of mounts that the test found."""
        if not self._is_over:
            self._begin("mounts", ()).observed = count - self._mounts_before

    def start_example(self) -> None:
        """Start another example."""
        self.past += self.steps
        self.steps = []
        self._start()

    def finish(self) -> list[RecordedCall]:
        """Return the program of the last example, with steps of earlier ones that it needs."""
        if self._is_over:
            return self.steps
        self._write_edits()
        if self.place.exists():  # it is missing if the cleanup has failed
            self._observe_home()
        self._is_over = True
        self.steps = [*self._needed(), *self.steps]
        return self.steps

    def _observe_home(self) -> None:
        self.record_mounts(len(observe.mounts_below(self.place)))
        names = observe.observed_home(observe.home_names(self.place), self._names_before)
        self._begin("home", ()).observed = names

    def _start(self) -> None:
        """Count mounts and names from this point."""
        self.steps.append(RecordedCall("start", ()))
        self._mounts_before = len(observe.mounts_below(self.place))
        self._names_before = observe.home_names(self.place)

    def _begin(self, verb: str, arguments: tuple[Any, ...], driver: int = 0) -> RecordedCall:
        # One of several concurrent drivers, or of one with fewer privileges.
        self.is_whole = self.is_whole and threading.get_ident() == self._thread
        self._write_edits()
        os.umask(mask := os.umask(0))
        if mask != self._umask and not self._is_over:
            self.steps.append(RecordedCall("umask", (mask,)))
            self._umask = mask
        step = RecordedCall(verb, arguments, driver)
        if not self._is_over:
            self.steps.append(step)
        return step

    def _write_edits(self) -> None:
        for id, (root, before, count) in list(self._views.items()):
            after = observe.scan(root)
            if after != before:
                self.steps.append(RecordedCall("edit", (id,), edits=edits_between(before, after)))
                self._views[id] = (root, after, count)

    def _observe_views(self) -> None:
        """Record the views that the last call has changed."""
        for id, (root, before, count) in list(self._views.items()):
            after = observe.scan(root)
            if after != before and not self._is_over:
                self.steps.append(
                    RecordedCall("look", (id,), observed=observe.observed_tree(after))
                )
                self._views[id] = (root, after, count)

    def _hold(self, id: str, root: Path) -> None:
        count = self._views[id][2] if id in self._views else 0
        self._views[id] = (root, observe.scan(root), count + 1)

    def _release(self, id: str) -> None:
        if id in self._views:
            root, shown, count = self._views.pop(id)
            if count > 1:
                self._views[id] = (root, shown, count - 1)

    def _needed(self) -> list[RecordedCall]:
        """Return the steps of earlier examples that created the layers, and drivers, of this
        one.
        """
        created = {one.layer for one in self.steps if one.verb.startswith("create")}
        requested = {str(a) for one in self.steps for a in one.arguments if isinstance(a, str)}
        requested -= created
        for one in reversed(self.past):
            if one.verb.startswith("create") and one.layer in requested:
                requested |= {str(a) for a in one.arguments if isinstance(a, str)}
        makers = {"create", "create_read_write", "get", "put", "edit", "apply_diff"}
        return [
            one
            for one in self.past
            if one.verb == "init" or (one.verb in makers and one.layer in requested - {""})
        ]


class _Recorded:
    """A driver whose verbs are recorded; other attributes are passed on."""

    def __init__(self, driver: Driver, recorder: Recorder, number: int) -> None:
        self.recorded, self._recorder, self._number = driver, recorder, number

    def __getattr__(self, name: str) -> Any:
        if name not in _VERBS:
            return getattr(self.recorded, name)
        return lambda *arguments, **named: self._recorder.call(
            self.recorded, self._number, name, (*arguments, *named.values())
        )

    def __str__(self) -> str:
        self._recorder.is_whole = False
        return str(self.recorded)


def unrecorded(driver: Driver) -> Driver:
    """Return the driver itself, without recorder."""
    return driver.recorded if isinstance(driver, _Recorded) else driver


class _Read:
    """A stream that a driver reads; records its content."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._rest = (
            bytes(stream.getbuffer()[stream.tell() :]) if isinstance(stream, io.BytesIO) else None
        )
        self._parts: list[bytes] = []

    def data(self) -> bytes:
        """Return the archive; for streams other than BytesIO the part that was read."""
        return b"".join(self._parts) if self._rest is None else self._rest

    def read(self, count: int = -1) -> bytes:
        part: bytes = self._stream.read(count)
        if self._rest is None:
            self._parts.append(part)
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Watched:
    """A stream that a driver returned; records the part that the test read."""

    def __init__(self, stream: Any, step: RecordedCall) -> None:
        self._stream, self._step = stream, step
        self._parts: list[bytes] = []
        step.observed = "the first 0 bytes"

    def read(self, count: int = -1) -> bytes:
        try:
            part: bytes = self._stream.read(count)
        except Exception:
            self._step.observed = RAISES
            raise
        self._parts.append(part)
        data = b"".join(self._parts)
        ended = count < 0 or (not part and count)
        self._step.observed = (
            observe.observed_archive(data) if ended else f"the first {len(data)} bytes"
        )
        return part

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
