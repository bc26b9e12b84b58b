"""The page and the Markdown: names and order of runs, and all fields of a violation."""

import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from conformance.pages.conftest import VIOLATED, MakeRun
from graphdriver_conformance.results.grid import in_order, labels, rows_of
from graphdriver_conformance.results.markdown import markdown
from graphdriver_conformance.results.model import (
    Ended,
    InitError,
    Outcome,
    Reason,
    RequirementResult,
    RunResult,
)
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.printable import printable

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\x00\x1b[31m\udc80"


class Text(HTMLParser):
    """The visible text of a page, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _with_init_error(run: RunResult) -> RunResult:
    error = InitError("DriverNotSupported", "no overlay in this kernel")
    return dataclasses.replace(run, driver=dataclasses.replace(run.driver, init_error=error))


def test_a_run_is_called_by_its_spec(make_run: MakeRun) -> None:
    run = make_run("mine:Driver")

    assert labels([run]) == ["mine:Driver"]
    assert "<h1>mine:Driver</h1>" in page([run])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"started": "2026-11-26T10:00:00Z"}, {}, ["2026-11-26 10:00:00", "2026-11-27 10:00:00"]),
        ({"suite": "0.1.0"}, {"suite": "0.2.0"}, ["suite 0.1.0", "suite 0.2.0"]),
        ({"options": ("a=b", "c=d")}, {"options": ("a=b",)}, ["a=b,c=d", "a=b"]),
        ({"kernel": "5.10"}, {"kernel": "6.18"}, ["5.10", "6.18"]),
        ({"profile": "quick"}, {}, ["profile quick", "profile default"]),
        ({"seed": 7}, {}, ["seed 7", "seed 0"]),
    ],
)
def test_runs_of_one_driver_can_be_told_apart(
    make_run: MakeRun, one: dict[str, Any], other: dict[str, Any], expected: list[str]
) -> None:
    runs = [make_run("mine:Driver", **one), make_run("mine:Driver", **other)]

    assert labels(runs) == [f"mine:Driver · {text}" for text in expected]


def test_only_runs_of_one_driver_are_called_by_more_than_the_spec(make_run: MakeRun) -> None:
    runs = [make_run("vfs"), make_run("mine"), make_run("mine", kernel="5.10")]

    assert labels(runs) == ["vfs", "mine · 6.18.1", "mine · 5.10"]


def test_one_file_twice_gives_two_names(make_run: MakeRun) -> None:
    assert labels([make_run("mine"), make_run("mine")]) == ["mine", "mine (2)"]


def test_runs_are_in_the_order_of_numbers_and_older_ones_first(make_run: MakeRun) -> None:
    names = [f"mine{number}" for number in (10, 2, 1, 11, 0)]
    runs = [make_run(name) for name in names]
    runs.append(make_run("mine2", started="2026-11-26T10:00:00Z"))

    ordered = in_order(runs)

    assert [run.driver.spec for run in ordered] == [
        "mine0",
        "mine1",
        "mine2",
        "mine2",
        "mine10",
        "mine11",
    ]
    assert ordered[2].started == "2026-11-26T10:00:00Z"


def test_rows_that_need_attention_come_first_and_causes_before_effects(make_run: MakeRun) -> None:
    blocked = {
        "outcome": Outcome.BLOCKED,
        "reason": Reason.RESTS_ON,
        "blocked_by": ("LIF-002",),
    }
    changes = {
        "DIF-002": VIOLATED,
        "LIF-002": VIOLATED,
        "LIF-003": blocked,
        "ARC-001": {"outcome": Outcome.NOT_SELECTED, "reason": Reason.SELECTION},
        "MET-001": {"outcome": Outcome.NOT_PROVABLE, "reason": Reason.ENVIRONMENT},
    }

    ids = [row.id for row in rows_of([make_run(changes=changes)])]

    assert ids[:4] == ["LIF-002", "DIF-002", "LIF-003", "MET-001"]
    assert ids[-1] == "ARC-001"
    assert ids[4:-1] == sorted(ids[4:-1])


def test_page_shows_every_part_of_a_violation(make_run: MakeRun) -> None:
    """A field that is added to the model must be displayed as well."""
    kinds = {field.name: field for field in dataclasses.fields(RequirementResult)}
    known = {"id", "level", "title", "outcome", "reason", "works", "examples", "seconds"}
    values: dict[str, Any] = {}
    for name in kinds.keys() - known - {"failures"}:
        is_text = kinds[name].default is None
        values[name] = f"the {name} of it" if is_text else (f"the {name} of it", f"more {name}")
    values |= {"outcome": Outcome.VIOLATED, "reason": Reason.DEADLINE, "failures": 3, "examples": 9}

    shown = Text(page([make_run(changes={"DIF-002": values})])).text

    texts = {name: [value] if isinstance(value, str) else value for name, value in values.items()}
    missing = [
        text
        for name, lines in texts.items()
        if name not in known | {"failures"}
        for text in lines
        if text not in shown
    ]
    assert missing == []
    assert "deadline, 0.01 s, 9 examples" in shown
    assert "2 more tests of this requirement failed" in shown


def test_violated_comes_first_on_the_page_and_in_markdown(make_run: MakeRun) -> None:
    run = make_run(changes={"WHT-001": VIOLATED})

    table = page([run]).partition('class="matrix')[2]
    assert re.findall(r'data-id="(.*?)"', table)[0] == "WHT-001"
    assert re.search(r"### WHT-001 \(MUST\) on mine:Driver", markdown([run]))


def test_equal_findings_of_several_runs_are_shown_once(make_run: MakeRun) -> None:
    alike = {**VIOLATED, "seconds": 9.0}
    other = {**VIOLATED, "actual": "no tree at all"}
    runs = [
        make_run("mine", {"DIF-002": fields}, kernel=kernel)
        for kernel, fields in (("5.10", VIOLATED), ("6.1", other), ("6.18", alike))
    ]

    made = page(runs)

    assert made.count("a tree without /d/a") == 1
    assert made.count("no tree at all") == 1
    assert [made.count(f'id="DIF-002.{number}"') for number in (1, 2, 3)] == [1, 1, 1]


def test_init_that_failed_is_at_the_top(make_run: MakeRun) -> None:
    run = _with_init_error(make_run("mine"))
    expected = "Init failed: DriverNotSupported: no overlay in this kernel"

    for runs in ([run], [run, make_run("vfs")]):
        top = Text(page(runs).partition("<main>")[0]).text
        assert expected in top
        assert "no overlay in this kernel" in markdown(runs).partition("## ")[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ended": Ended.INTERRUPTED, "complete": False}, "The run was interrupted before its end"),
        ({"ended": Ended.CRASHED, "complete": False}, "The run crashed before its end"),
        ({"complete": False}, "The run is not complete"),
    ],
)
def test_run_without_its_end_is_at_the_top(
    make_run: MakeRun, fields: dict[str, Any], words: str
) -> None:
    lost = {"outcome": Outcome.NOT_PROVABLE, "reason": Reason.NOT_REPORTED}
    run = make_run("mine", {"DIF-002": lost}, **fields)

    for runs in ([run], [run, make_run("vfs")]):
        top = Text(page(runs).partition("<main>")[0]).text
        assert f"{words}; 1 requirement did not report to the end." in top
        assert "**mine**: the run" in markdown(runs)


def test_texts_of_drivers_are_escaped(make_run: MakeRun) -> None:
    texts = dict.fromkeys(("detail", "expected", "actual", "kept", "reproduce", "script"), HOSTILE)
    lines = dict.fromkeys(("program", "tree", "mounts", "output", "example", "notes"), (HOSTILE,))
    changes = {"DIF-002": {"outcome": Outcome.VIOLATED, **texts, **lines}}
    run = make_run(HOSTILE, changes, options=(HOSTILE,), kernel=HOSTILE, home=HOSTILE)
    run = _with_init_error(run)

    for runs in ([run], [run, make_run(f"{HOSTILE}2", changes)]):
        made = page(runs)
        made.encode()
        assert Text(made).tags.count("script") == 1, "only our own"
        assert "img" not in Text(made).tags
        assert "\x1b" not in made
        assert printable(HOSTILE) in Text(made).text


def test_text_that_cannot_be_printed_is_shown_as_python_would_escape_it() -> None:
    assert (
        printable("a\x1b[1m\udc80\u202e\x85\x00\n\tä漢")
        == r"a\x1b[1m\udc80\u202e\x85\x00" + "\n\tä漢"
    )


def test_texts_of_drivers_are_escaped_in_markdown(make_run: MakeRun) -> None:
    output = ("~~~~", "# a heading", "~~~~~~")
    run = make_run("a|b\n<b>`c`", {"DIF-002": {**VIOLATED, "output": output}})

    made = markdown([run])

    assert "\n~~~~~~~\nexpected:" in made, "a fence longer than any in the text"
    assert r"| a\|b &lt;b>\`c\` |" in made


def test_page_says_why_the_verdict_is_what_it_is(make_run: MakeRun) -> None:
    unproven = {"outcome": Outcome.NOT_PROVABLE, "reason": Reason.ENVIRONMENT}
    inconclusive = make_run("mine", {"DIF-002": unproven})
    violated = make_run("vfs", {"DIF-002": VIOLATED})

    assert (
        "Inconclusive no MUST violated, but 1 MUST not provable here"
        in Text(page([inconclusive])).text
    )
    assert "Not conformant 1 MUST violated" in Text(page([inconclusive, violated])).text


def test_page_says_what_works_although_not_claimed(make_run: MakeRun) -> None:
    works = {
        "outcome": Outcome.NOT_CLAIMED,
        "reason": Reason.NO_CAPABILITY,
        "capability": "quota",
        "works": True,
    }

    shown = Text(page([make_run(changes={"QUO-001": works})])).text

    assert "not claimed needs quota, works although not claimed" in shown


def test_page_of_nothing_but_met_requirements_says_so(make_run: MakeRun) -> None:
    made = page([make_run()])

    assert "needs a look" not in Text(made).text.lower()
    assert "Conformant" in made


def test_page_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no run"):
        page([])
