"""Histories of concurrent verbs on layers and their parents: linearizable ones and others."""

import pytest

from graphdriver_conformance.oracle.history import (
    Call,
    FamilyModel,
    is_linearisable,
    marked_busy,
)

BASE = FamilyModel("base")


def _one_after_the_other(*calls: tuple[str, str, str, bool]) -> list[Call]:
    return [
        Call(verb, 2 * time, 2 * time + 1, answer, id, parent)
        for time, (verb, id, parent, answer) in enumerate(calls)
    ]


def _at_once(*calls: tuple[str, str, str, bool]) -> list[Call]:
    return [Call(verb, 0, 9, answer, id, parent) for verb, id, parent, answer in calls]


MADE = ("create", "a", "base", True)
CHILD = ("create", "b", "a", True)


@pytest.mark.parametrize(
    "calls",
    [
        [MADE, CHILD, ("remove", "a", "", False), ("remove", "b", "", True)],
        [MADE, ("remove", "a", "", True), ("create", "b", "a", False)],
        [MADE, ("get", "a", "", True), ("remove", "a", "", False), ("put", "a", "", True)],
        [("apply", "a", "base", False), MADE, ("apply", "a", "base", True)],
    ],
)
def test_history_with_an_order(calls: list[tuple[str, str, str, bool]]) -> None:
    assert is_linearisable(_one_after_the_other(*calls), BASE)


@pytest.mark.parametrize(
    "calls",
    [
        [MADE, CHILD, ("remove", "a", "", True)],
        [MADE, ("remove", "a", "", True), CHILD],
        [MADE, ("remove", "a", "", False)],
        [MADE, ("get", "a", "", False)],
        [("apply", "a", "base", True)],
    ],
)
def test_history_without_an_order(calls: list[tuple[str, str, str, bool]]) -> None:
    assert not is_linearisable(marked_busy(_one_after_the_other(*calls)), BASE)


@pytest.mark.parametrize(
    ("held", "excludes", "fits"), [("a", True, True), ("c", True, False), ("a", False, False)]
)
def test_get_refused_while_the_parent_is_held(held: str, excludes: bool, fits: bool) -> None:
    calls = [MADE, ("create", "c", "base", True), CHILD, ("get", held, "", True)]
    history = _one_after_the_other(*calls, ("get", "b", "", False))

    assert is_linearisable(history, FamilyModel("base", excludes=excludes)) is fits


def test_child_and_the_removal_of_its_parent_do_not_both_succeed() -> None:
    start = FamilyModel("base", layers=frozenset({("a", "base", 0)}))
    both = _at_once(CHILD, ("remove", "a", "", True))

    assert not is_linearisable(marked_busy(both), start)
    assert is_linearisable(both, FamilyModel("base", copies=True, layers=start.layers))
    assert is_linearisable(both, FamilyModel("base", orphans=True, layers=start.layers))


def test_refusal_needs_a_cause_or_another_call() -> None:
    start = FamilyModel("base", layers=frozenset({("a", "base", 0)}))
    refused = [Call("remove", 0, 2, False, "a"), Call("exists", 1, 3, True, "a")]

    assert not is_linearisable(refused, start)
    assert is_linearisable(marked_busy(refused), start)
