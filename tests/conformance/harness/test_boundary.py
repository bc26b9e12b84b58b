"""Return values and exceptions of drivers: converted to plain types, and none ends a test."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis.errors import UnsatisfiedAssumption

from graphdriver.contract import Change, ChangeKind
from graphdriver.errors import DriverError
from graphdriver_conformance.fixture.boundary import Boundary, NoError, WrongType, origin_of
from graphdriver_conformance.fixture.watch import Watch


class _Own(BaseException):
    pass


class _WithoutText(DriverError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _Unchangeable(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("this exception is immutable")


class _Equal:
    """An object that is equal to every other one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


class _Bytes(_Equal, bytes):
    pass


class _Text(_Equal, str):
    pass


class _Number(_Equal, int):
    pass


class _Proxy(_Equal):
    """An object that reports another class, as lazy proxies do."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __getattribute__(self, name: str) -> Any:
        kind = object.__getattribute__(self, "_kind")
        return kind if name == "__class__" else object.__getattribute__(self, name)


class _WithoutRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class _Row:
    path, kind = _Bytes(b"/a"), _Number(1)


class _ReadsMore(io.BytesIO):
    def read(self, count: int | None = -1) -> bytes:
        return super().read(-1)


class _PathOfBytes:
    def __fspath__(self) -> bytes:
        return b"/tmp"


class _Answers:
    """A driver whose verbs all return the same value, or raise the same exception."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*_: object) -> object:
            if isinstance(self._answer, BaseException):
                raise self._answer
            return self._answer

        return call


def _boundary(answer: object) -> Boundary:
    return Boundary(_Answers(answer), None)


@pytest.mark.parametrize(
    "error",
    [
        pytest.skip.Exception("not here"),
        pytest.xfail.Exception("not here"),
        pytest.exit.Exception("enough", 0),
        UnsatisfiedAssumption(),
        GeneratorExit(),
        _Own(),
        _WithoutText("?"),
        _Unchangeable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exception_that_is_no_driver_error(error: BaseException) -> None:
    with pytest.raises(NoError, match=type(error).__name__):
        _boundary(error).exists("a")


@pytest.mark.parametrize("error", [DriverError("no"), OSError(2, "no"), ValueError("no")], ids=repr)
def test_exception_of_a_driver_stays(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        _boundary(error).exists("a")

    assert raised.value is error
    assert origin_of(error) == "exists('a')"


_WRONG: dict[str, tuple[str, object]] = {
    "a proxy of a bool": ("exists", _Proxy(bool)),
    "a number for a bool": ("exists", 1),
    "without repr": ("exists", _WithoutRepr()),
    "a proxy of a number": ("diff_size", _Proxy(int)),
    "a bool for a number": ("diff_size", True),
    "NaN": ("diff_size", float("nan")),
    "a proxy of a Change": ("changes", [_Proxy(Change)]),
    "a dict of changes": ("changes", {b"/a": 1}),
    "a path of bytes": ("get", _PathOfBytes()),
    "a proxy of a path": ("get", _Proxy(str)),
    "a proxy of a text": ("get_metadata", {"UpperDir": _Proxy(str)}),
    "a short row": ("status", [("one",)]),
}


@pytest.mark.parametrize("name", _WRONG)
def test_answer_of_a_wrong_type(name: str) -> None:
    verb, answer = _WRONG[name]

    with pytest.raises(WrongType):
        getattr(_boundary(answer), verb)("a")


def test_results_with_their_own_comparison_are_converted() -> None:
    assert [Change(b"/a", ChangeKind.ADD)] == _boundary([_Row()]).changes("a")
    assert _boundary([_Row()]).changes("a") != [Change(b"/b", ChangeKind.ADD)]
    assert _boundary(_Number(-5)).diff_size("a") != 5
    assert _boundary({_Text("a"): _Text("b")}).get_metadata("a") != {"a": "c"}
    assert _boundary([(_Text("a"), _Text("b"))]).status() != [("a", "c")]
    assert _boundary(_Text("/a")).get("a") != Path("/b")


def test_unknown_kind_stays_a_number() -> None:
    (row,) = _boundary([Change(b"/a", 7)]).changes("a")  # type: ignore[arg-type]

    assert row.kind == 7


def test_stream_that_reads_more_than_it_is_asked_for() -> None:
    with _boundary(_ReadsMore(b"12345")).diff("a") as stream, pytest.raises(WrongType):
        stream.read(2)


def test_copy_of_the_process_ends_in_the_verb() -> None:
    class Forks:
        def exists(self, id: str) -> bool:
            if process := os.fork():
                os.waitpid(process, 0)
            return False

    watch = Watch()

    found = Boundary(Forks(), watch).exists("a")  # type: ignore[arg-type]

    assert (found, watch.copied(), watch.copied()) == (False, "exists('a')", "")
