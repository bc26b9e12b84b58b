"""Two concurrent verbs on a layer, its child and its grandchild, compared with a model.

The result of two concurrent verbs must equal that of a sequence of both, in either order. One other
result is allowed: apply_diff may be refused because the other verb used a layer above.
"""

import io
import itertools
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from graphdriver import errors
from graphdriver.contract import Driver as DriverProtocol
from graphdriver.overlay2 import Driver as Overlay2
from graphdriver.vfs import Driver as Vfs
from graphdriver_conformance.oracle.archive import build_archive, entry_of
from graphdriver_conformance.oracle.tree import file
from otherprocess import OtherProcess

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts without a namespace")

Factory = type[Overlay2] | type[Vfs]
PARENTS = {"a": "", "b": "a", "c": "b"}
FILES = 10
DEADLINE = 120.0


@dataclass(frozen=True)
class State:
    """The content of each layer, by the letters of its source layers, and the held layers.

    With overlay2 a layer contains only its own content, with vfs that of its view.
    """

    content: Mapping[str, frozenset[str]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()

    def shown(self, id: str, rules: "Rules") -> frozenset[str]:
        """Return the content of the view of `id`."""
        below = () if rules.copies else _ancestors(id)
        return frozenset().union(*(self.content[one] for one in (id, *below)))

    def above(self, id: str) -> frozenset[str]:
        return frozenset(one for one in self.content if id in _ancestors(one))


@dataclass(frozen=True)
class Verb:
    name: str
    id: str

    def __str__(self) -> str:
        return f"{self.name}-{self.id}"


@dataclass(frozen=True)
class Rules:
    """Differences of the drivers: vfs copies, so holders above are allowed."""

    copies: bool = False


def _ancestors(id: str) -> list[str]:
    found = []
    while id := PARENTS[id]:
        found.append(id)
    return found


def _expect(state: State, verb: Verb, rules: Rules) -> tuple[str, State]:
    """Return the outcome of a verb and the state afterwards."""
    id, parent = verb.id, PARENTS[verb.id]
    there = id in state.content
    if verb.name == "create":
        if there:
            return "LayerExists", state
        if parent and parent not in state.content:
            return "LayerNotFound", state
        copied = state.content[parent] if parent and rules.copies else frozenset()
        return "ok", replace(state, content={**state.content, id: copied})
    if verb.name == "remove":
        if not there:
            return "ok", state
        if state.above(id) or id in state.held:
            return "LayerInUse", state
        left = {one: content for one, content in state.content.items() if one != id}
        return "ok", State(left, state.held - {id})
    if not there:
        return "LayerNotFound", state
    if verb.name == "apply":
        # A layer with children is mounted read-only, so no archive can be applied through its view.
        if not rules.copies and (state.above(id) & state.held or _is_read_only(state, id)):
            return "LayerInUse", state
        return "ok", replace(state, content={**state.content, id: state.content[id] | {id}})
    assert verb.name == "get"
    return "ok", replace(state, held=state.held | {id})


def _is_read_only(state: State, id: str) -> bool:
    return bool(PARENTS[id] and id in state.held and state.above(id))


def _archive(id: str) -> bytes:
    return build_archive([entry_of(f"{id}{n}", file(id.encode())) for n in range(FILES)])


ARCHIVES = {id: _archive(id) for id in PARENTS}


def _do(driver: DriverProtocol, verb: Verb) -> str:
    try:
        if verb.name == "create":
            driver.create_read_write(verb.id, PARENTS[verb.id])
        elif verb.name == "remove":
            driver.remove(verb.id)
        elif verb.name == "apply":
            driver.apply_diff(verb.id, PARENTS[verb.id], io.BytesIO(ARCHIVES[verb.id]))
        else:
            driver.get(verb.id)
    except errors.DriverError as error:
        return type(error).__name__
    return "ok"


def _content(names: list[str]) -> frozenset[str]:
    """Return the layers whose files are present; each must be complete."""
    for id in PARENTS:
        count = sum(name.startswith(id) for name in names)
        assert count in (0, FILES), f"{count} of {FILES} files of layer {id} show: {names}"
    return frozenset(name[0] for name in names)


def _view(driver: DriverProtocol, id: str) -> frozenset[str]:
    view = driver.get(id)
    try:
        return _content(os.listdir(view))
    finally:
        driver.put(id)


def _archived(driver: DriverProtocol, id: str) -> frozenset[str]:
    with driver.diff(id) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        return _content([member.name for member in archive if member.name != "."])


def _observe(driver: DriverProtocol, held: frozenset[str], rules: Rules) -> State:
    """Read each layer through its view and through its archive."""
    content: dict[str, frozenset[str]] = {}
    for id in PARENTS:
        if driver.exists(id):
            shown = _view(driver, id)
            assert shown == _archived(driver, id)
            content[id] = shown if rules.copies else shown & {id}
            assert State(content).shown(id, rules) == shown, f"{id} shows {sorted(shown)}"
    return State(content, held & content.keys())


# Preparation of the initial states of pairs.
SETUPS = [
    "",
    "create-a apply-a",
    "create-a apply-a create-b apply-b",
    "create-a apply-a create-b get-b",
    "create-a apply-a create-b apply-b create-c apply-c",
    "create-a apply-a create-b apply-b create-c get-c",
]
VERBS = [Verb(name, id) for name in ("create", "remove", "apply", "get") for id in PARENTS]


def _prepare(driver: DriverProtocol, setup: str, rules: Rules) -> State:
    driver.cleanup()
    for id in reversed(PARENTS):
        driver.remove(id)
    state = State()
    for word in setup.split():
        verb = Verb(*word.split("-"))
        outcome, state = _expect(state, verb, rules)
        assert outcome == _do(driver, verb)
    return state


def _orders(state: State, verbs: tuple[Verb, Verb], rules: Rules) -> list[tuple[list[str], State]]:
    """Return the valid results: outcomes in the order of `verbs`, and the state."""
    ends = []
    for order in ((0, 1), (1, 0)):
        outcomes, now = ["", ""], state
        for index in order:
            outcomes[index], now = _expect(now, verbs[index], rules)
        ends.append((outcomes, now))
    for index, verb in enumerate(verbs):
        other = verbs[1 - index]
        above = verb.id in (other.id, *_ancestors(other.id))
        if (verb.name == "apply" and above and other.name != "remove") or (
            verb.name == "remove" and other == Verb("apply", verb.id)
        ):
            outcomes = ["LayerInUse", "LayerInUse"]
            outcomes[1 - index], now = _expect(state, other, rules)
            ends.append((outcomes, now))
    return ends


def _check(
    driver: DriverProtocol,
    rules: Rules,
    run: Callable[[tuple[Verb, Verb]], list[str]],
    verbs: tuple[Verb, Verb],
    holds: bool = True,
) -> None:
    for setup in SETUPS:
        if not holds and "get" in setup:
            continue
        state = _prepare(driver, setup, rules)
        outcomes = run(verbs)
        ends = zip(verbs, outcomes, strict=True)
        held = state.held | {verb.id for verb, end in ends if (verb.name, end) == ("get", "ok")}
        seen = _observe(driver, held if holds else frozenset(), rules)
        right = _orders(state, verbs, rules)
        if not holds:
            right = [(end, replace(now, held=frozenset())) for end, now in right]
        assert (outcomes, seen) in right, (
            f"{verbs[0]} and {verbs[1]} at once after {setup!r}: {outcomes}, then {seen}; "
            f"right is one of {right}"
        )


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs, where no fsync separates two verbs."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-R", "-l", tmp_path], check=True)


def _at_once(calls: tuple[Callable[[], str], Callable[[], str]]) -> list[str]:
    start = threading.Barrier(2)
    outcomes = ["did not end", "did not end"]

    def run(index: int) -> None:
        start.wait(DEADLINE)
        try:
            outcomes[index] = calls[index]()
        except Exception as error:
            outcomes[index] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    return outcomes


@pytest.mark.parametrize("name", ["create", "remove", "apply", "get"])
@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_two_threads(fast: Path, factory: Factory, name: str) -> None:
    driver: DriverProtocol = factory(fast / "home")
    rules = Rules(copies=factory is Vfs)

    def run(verbs: tuple[Verb, Verb]) -> list[str]:
        first, second = verbs
        return _at_once((lambda: _do(driver, first), lambda: _do(driver, second)))

    for first, second in itertools.product(VERBS, VERBS):
        if first.name == name:
            _check(driver, rules, run, (first, second))
    driver.cleanup()


@pytest.mark.parametrize("name", ["create", "remove", "apply"])
@pytest.mark.parametrize("factory", [Overlay2, Vfs])
def test_two_processes(fast: Path, factory: Factory, name: str) -> None:
    driver: DriverProtocol = factory(fast / "home")
    rules = Rules(copies=factory is Vfs)
    with OtherProcess(str(driver), fast / "home") as other:

        def run(verbs: tuple[Verb, Verb]) -> list[str]:
            first, second = verbs
            outcomes = _at_once((lambda: _do(driver, first), lambda: _ask(other, second)))
            if second.name == "get":
                other.call("cleanup")
            return outcomes

        for first, second in itertools.product(VERBS, VERBS):
            if first.name == name:
                _check(driver, rules, run, (first, second), holds=False)
    driver.cleanup()


def _ask(other: OtherProcess, verb: Verb) -> str:
    if verb.name == "create":
        return other.call("create_read_write", verb.id, PARENTS[verb.id])
    if verb.name == "apply":
        return other.call("apply_diff", verb.id, PARENTS[verb.id], ARCHIVES[verb.id])
    return other.call(verb.name, verb.id)
