"""Waivers accept a known violation until a date; baselines accept the existing violations."""

import datetime
import json
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.model import (
    Outcome,
    Reason,
    RequirementResult,
    Verdict,
    verdict_of,
)
from graphdriver_conformance.results.waivers import (
    BadWaivers,
    Waiver,
    apply_baseline,
    apply_waivers,
    read_baseline,
    read_waivers,
)

pytest_plugins = ["pytester"]

DAY = datetime.date(2027, 3, 1)
BROKEN = "--driver=graphdriver_mutants:UnknownDiffIsEmpty"
ENTRY = """[[waive]]
requirement = "DIF-008"
reason = "tracked upstream"
issue = "https://example.org/17"
until = "2999-03-01"
"""


def _results(outcome: Outcome) -> dict[str, RequirementResult]:
    return {"LIF-001": RequirementResult.of(catalogue()["LIF-001"], outcome, actual="it failed")}


def _waiver(id: str = "LIF-001") -> Waiver:
    return Waiver(id, "known", "#17", DAY)


def test_waived_violation_keeps_its_finding_and_the_driver_does_not_conform() -> None:
    after, wrong = apply_waivers(_results(Outcome.VIOLATED), [_waiver()], DAY)

    assert wrong == []
    waived = after["LIF-001"]
    assert (waived.outcome, waived.reason) == (Outcome.WAIVED, Reason.WAIVER)
    assert waived.detail == "waived until 2027-03-01: known (#17)"
    assert waived.actual == "it failed"
    assert verdict_of(after.values()) is Verdict.NOT_CONFORMANT


def test_expired_waiver_waives_nothing() -> None:
    tomorrow = DAY + datetime.timedelta(days=1)

    after, wrong = apply_waivers(_results(Outcome.VIOLATED), [_waiver()], tomorrow)

    assert wrong == ["LIF-001: its waiver expired on 2027-03-01"]
    assert Outcome.VIOLATED is after["LIF-001"].outcome


def test_waiver_of_a_met_requirement_is_stale() -> None:
    _, wrong = apply_waivers(_results(Outcome.MET), [_waiver()], DAY)

    assert wrong == ["LIF-001 is met; remove its waiver"]


def _results_as(outcomes: dict[str, Outcome]) -> dict[str, RequirementResult]:
    return {id: RequirementResult.of(catalogue()[id], one) for id, one in outcomes.items()}


def test_pattern_waives_all_that_it_names_and_single_entries_come_before_it(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    own = ENTRY.replace("tracked upstream", "this one")
    path.write_text(own + ENTRY.replace("DIF-008", "DIF-*"))
    outcomes = {
        "DIF-001": Outcome.VIOLATED,
        "DIF-008": Outcome.BLOCKED,
        "LIF-001": Outcome.VIOLATED,
    }
    waivers = [one for one in read_waivers(path) if one.requirement in outcomes]

    after, wrong = apply_waivers(_results_as(outcomes), waivers, DAY)

    assert wrong == []
    assert [one.outcome for one in after.values()] == ["waived", "waived", "violated"]
    assert "this one" in (after["DIF-008"].detail or "")
    assert {one.requirement for one in read_waivers(path)} == {
        id for id in catalogue() if id.startswith("DIF-")
    }


@pytest.mark.parametrize(
    ("second", "is_stale"),
    [
        (Outcome.MET, True),
        (Outcome.NOT_CLAIMED, True),
        (Outcome.VIOLATED, False),
        (Outcome.NOT_PROVABLE, False),
    ],
)
def test_pattern_is_stale_when_nothing_can_need_it(second: Outcome, is_stale: bool) -> None:
    judged = _results_as({"DIF-001": Outcome.MET, "DIF-008": second})
    waivers = [Waiver(id, "known", "#17", DAY, "DIF-*") for id in judged]

    _, wrong = apply_waivers(judged, waivers, DAY)

    assert wrong == ["DIF-* is met; remove its waiver"] * is_stale
    late = DAY + datetime.timedelta(days=1)
    assert apply_waivers(judged, waivers, late)[1] == ["DIF-*: its waiver expired on 2027-03-01"]


@pytest.mark.parametrize("outcome", [Outcome.NOT_PROVABLE, Outcome.ERROR, Outcome.NOT_CLAIMED])
def test_waiver_of_an_untested_requirement_has_no_effect(outcome: Outcome) -> None:
    before = _results(outcome)

    assert apply_waivers(before, [_waiver()], DAY) == (before, [])


def test_baseline_waives_its_own_violations_only() -> None:
    before = _results(Outcome.VIOLATED)

    waived = apply_baseline(before, {"LIF-001"})["LIF-001"]
    assert (waived.outcome, waived.reason) == (Outcome.WAIVED, Reason.BASELINE)
    assert before == apply_baseline(before, {"LIF-002"})
    assert before == apply_baseline(before, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("[[waive", "is not TOML"),
        ("", "must hold [[waive]] entries"),
        ("other = 1\n" + ENTRY, "nothing else"),
        ("[[waive]]\nrequirement = 'DIF-008'\n", "must have issue, reason, requirement, until"),
        (ENTRY.replace("DIF-008", "DIF-999"), "DIF-999: no such requirement"),
        (ENTRY.replace("DIF-008", "XYZ-*"), "XYZ-*: no such requirement"),
        (ENTRY.replace("2999-03-01", "some day"), "until must be a day"),
        (ENTRY.replace("tracked upstream", " "), "reason must be a text"),
        (ENTRY.replace('"tracked upstream"', "3"), "reason must be a text"),
    ],
)
def test_bad_file_of_waivers_is_one_sentence(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "waivers.toml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(BadWaivers) as caught:
        read_waivers(path)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_baseline_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")

    for name in ("b.json", "nowhere.json"):
        with pytest.raises(BadWaivers):
            read_baseline(tmp_path / name)


def test_runs_obey_waivers_and_baselines(pytester: pytest.Pytester) -> None:
    def run(*arguments: str) -> pytest.RunResult:
        fixed = ["-p", "no:xdist", "-p", "no:cacheprovider", "--requirement=DIF-008"]
        return pytester.runpytest_subprocess(*fixed, "--requirement=LIF-001", *arguments)

    waivers = "--graphdriver-waivers=w.toml"
    (pytester.path / "w.toml").write_text(ENTRY)
    waived = run(BROKEN, waivers, "--graphdriver-report=old.json")
    assert waived.ret == 0
    waived.stdout.fnmatch_lines(
        ["WAIVED  DIF-008 (MUST)  waived until 2999-03-01: tracked upstream (https*", "*NOT CONF*"]
    )
    rows = json.loads((pytester.path / "old.json").read_text())
    assert rows["counts"]["waived"] == 1

    assert run(BROKEN, "--graphdriver-baseline=old.json").ret == 0
    stale = run("--driver=vfs", waivers)
    assert stale.ret == 1
    stale.stdout.fnmatch_lines(["FAILED  DIF-008 is met; remove its waiver"])
    # One of two drivers needs it, so it is not stale.
    assert run("--driver=vfs", BROKEN, waivers).ret == 0
    (pytester.path / "w.toml").write_text("[[waive]]\n")
    bad = run(BROKEN, waivers)
    assert bad.ret == 4
    bad.stderr.fnmatch_lines(["*w.toml: entry 1: must have*"])
    assert run(BROKEN, "--graphdriver-baseline=w.toml").ret == 4
