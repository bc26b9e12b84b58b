"""The difference between two runs: newly violated, newly met, other changes, environment."""

from typing import Any

import pytest

from conformance.pages.conftest import VIOLATED, MakeRun
from graphdriver_conformance.results.diff import NotComparable, compare, lines
from graphdriver_conformance.results.markdown import diff_markdown
from graphdriver_conformance.results.model import Outcome, Reason
from graphdriver_conformance.results.page import diff_page

ID = "DIF-002"


def _fields(outcome: Outcome) -> dict[str, Any]:
    return VIOLATED if outcome is Outcome.VIOLATED else {"outcome": outcome}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("met", "violated", "newly_violated"),
        ("not-provable", "violated", "newly_violated"),
        ("not-claimed", "violated", "newly_violated"),
        ("not-selected", "violated", "newly_violated"),
        ("error", "violated", "newly_violated"),
        ("met", "blocked", "newly_violated"),
        ("violated", "met", "newly_met"),
        ("waived", "met", "newly_met"),
        ("blocked", "met", "newly_met"),
        ("not-provable", "met", "newly_met"),
        ("error", "met", "newly_met"),
        ("not-claimed", "met", "newly_met"),
        ("met", "not-provable", "others"),
        ("met", "not-claimed", "others"),
        ("met", "error", "others"),
        ("met", "waived", "others"),
        ("violated", "waived", "others"),
        ("waived", "violated", "others"),
        ("violated", "blocked", "others"),
        ("violated", "not-selected", "others"),
        ("met", "not-selected", "tested_before"),
        ("not-selected", "met", "tested_now"),
    ],
)
def test_change_has_its_place(make_run: MakeRun, old: str, new: str, expected: str) -> None:
    runs = [make_run(changes={ID: _fields(Outcome(one))}) for one in (old, new)]

    (difference,) = compare(runs[:1], runs[1:])

    places = ("newly_violated", "newly_met", "others", "tested_before", "tested_now")
    assert [name for name in places if getattr(difference, name)] == [expected]


@pytest.mark.parametrize("outcome", Outcome)
def test_equal_outcomes_are_no_change(make_run: MakeRun, outcome: Outcome) -> None:
    run = make_run(changes={ID: _fields(outcome)})

    (difference,) = compare([run], [run])

    assert difference.groups == []
    assert difference.circumstances == ()


def test_requirement_of_a_newer_suite_may_be_newly_violated(make_run: MakeRun) -> None:
    new = make_run(changes={ID: VIOLATED})
    old = make_run()
    del old.requirements[ID]  # type: ignore[attr-defined]

    (difference,) = compare([old], [new])

    assert [one.words for one in difference.newly_violated] == [("absent", "violated")]


def test_circumstances_come_first(make_run: MakeRun) -> None:
    old = make_run("mine", kernel="5.10", suite="0.1.0")
    new = make_run("mine", {ID: VIOLATED}, kernel="6.18", suite="0.2.0", options=("a=b",))

    (difference,) = compare([old], [new])

    assert difference.circumstances == (
        ("options", "none", "a=b"),
        ("kernel", "5.10", "6.18"),
        ("suite", "0.1.0", "0.2.0"),
    )
    text = "\n".join(line for line, _ in lines(difference))
    for made in (text, diff_markdown([difference]), diff_page([difference])):
        assert made.index("5.10") < made.index(ID)
    assert "kernel   5.10 -> 6.18" in text


def test_newly_violated_is_explained_and_reproduced(make_run: MakeRun) -> None:
    (difference,) = compare([make_run()], [make_run(changes={ID: VIOLATED})])

    text = "\n".join(line for line, _ in lines(difference))
    for made in (text, diff_markdown([difference]), diff_page([difference])):
        assert "a tree without /d/a" in made
        assert "--requirement=DIF-002" in made
    assert "1 newly violated, 0 newly met, 0 other changes, 0 changes of circumstances" in text


def test_blocked_says_by_what(make_run: MakeRun) -> None:
    blocked = {
        "outcome": Outcome.BLOCKED,
        "reason": Reason.RESTS_ON,
        "blocked_by": ("LIF-002",),
    }

    (difference,) = compare([make_run()], [make_run(changes={ID: blocked, "LIF-002": VIOLATED})])

    assert "      rests on LIF-002" in [line for line, _ in lines(difference)]


def test_several_drivers_are_compared_each_with_itself(make_run: MakeRun) -> None:
    old = [make_run("a"), make_run("b")]
    new = [make_run("b", {ID: VIOLATED}), make_run("a")]

    found = compare(old, new)

    assert [(one.old.driver.spec, len(one.newly_violated)) for one in found] == [("b", 1), ("a", 0)]


def test_runs_of_other_drivers_are_not_compared(make_run: MakeRun) -> None:
    with pytest.raises(NotComparable, match="has runs of a, b, the newer one of a, c"):
        compare([make_run("a"), make_run("b")], [make_run("a"), make_run("c")])


def test_one_driver_can_be_compared_with_another(make_run: MakeRun) -> None:
    (difference,) = compare([make_run("a")], [make_run("b")])

    assert ("driver", "a", "b") in difference.circumstances
