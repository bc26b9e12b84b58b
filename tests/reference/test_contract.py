"""The contract as its users depend on it."""

import pickle

import pytest

from graphdriver import Change, ChangeKind, errors


def test_kinds_have_the_values_of_the_protocol() -> None:
    assert [(k.name, k.value) for k in ChangeKind] == [("MODIFY", 0), ("ADD", 1), ("DELETE", 2)]


def test_change_prints_as_docker_does() -> None:
    assert str(Change(b"/etc", ChangeKind.MODIFY)) == "C /etc"
    assert str(Change(b"/caf\xe9", ChangeKind.ADD)) == "A /caf\\xe9"


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "DriverError"])
def test_every_error_is_a_driver_error_that_keeps_its_hint(name: str) -> None:
    kind = getattr(errors, name)

    error = kind("tried this on that", "do so")

    assert isinstance(error, errors.DriverError)
    assert str(error) == "tried this on that; do so"
    assert pickle.loads(pickle.dumps(error)).hint == "do so"
