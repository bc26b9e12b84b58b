"""The contract as its users depend on it."""

import pickle

import pytest

from graphdriver import Change, ChangeKind, errors


def test_kinds_have_the_values_of_the_wire() -> None:
    assert [("MODIFY", 0), ("ADD", 1), ("DELETE", 2)] == [(k.name, k.value) for k in ChangeKind]


def test_change_prints_as_docker_does() -> None:
    assert "C /etc" == str(Change(b"/etc", ChangeKind.MODIFY))
    assert "A /caf\\xe9" == str(Change(b"/caf\xe9", ChangeKind.ADD))


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "DriverError"])
def test_every_error_is_a_driver_error_that_keeps_its_hint(name: str) -> None:
    kind = getattr(errors, name)

    error = kind("tried this on that", "do so")

    assert isinstance(error, errors.DriverError)
    assert "tried this on that; do so" == str(error)
    assert "do so" == pickle.loads(pickle.dumps(error)).hint
