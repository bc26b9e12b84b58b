"""Comparison of rows, in each format of the report."""

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from graphdriver_vms.results.judge import Cell, Row, State
from graphdriver_vms.results.markdown import as_markdown
from graphdriver_vms.results.page import as_page
from graphdriver_vms.results.result import parse_result
from graphdriver_vms.results.tables import (
    cell_table,
    changes,
    fact_table,
    ground_table,
    requirement_table,
)
from graphdriver_vms.results.terminal import lines


def _cell(state: State, detail: str, **outcomes: str) -> Cell:
    requirements: list[dict[str, Any]] = [
        {
            "id": id,
            "level": "MUST",
            "title": f"<{id}> & so on",
            "outcome": outcome,
            "detail": None if outcome == "met" else "needs what is not here",
        }
        for id, outcome in outcomes.items()
    ]
    result = parse_result({"schema": 1, "verdict": "conformant", "requirements": requirements})
    return Cell("ext4", "overlay2", state, detail, 1.0, result)


ROWS = [
    Row("3.16", problem="takes internet"),
    Row(
        "5.10",
        "5.10.0-46",
        seconds=100,
        facts={"userns.overlay": "EPERM", "mount.index": "ok"},
        cells=[_cell(State.MET, "1 met", A="not-provable", B="met")],
    ),
    Row("6.1", problem="6.1: vagrant up did not end in 300 s\n    console: panic", failed=True),
    Row(
        "7.3",
        "7.3.4",
        seconds=90,
        facts={"userns.overlay": "ok", "mount.index": "ok"},
        cells=[_cell(State.DIFFERENT, "C violated", A="met", B="met", C="violated")],
    ),
]


def test_the_first_kernel_where_something_changed_is_named() -> None:
    ran = [row for row in ROWS if row.cells]
    table = requirement_table(ran, "ext4")

    assert {line.name: changes(line, table.columns) for line in table.lines} == {
        "A": ["7.3: not-provable → met"],
        "B": [],
        "C": [],
    }
    assert [line.name for line in table.uneven().lines] == ["A"]
    assert [line.name for line in fact_table(ran).uneven().lines] == ["userns.overlay"]


def test_cells_lie_side_by_side_whatever_the_kernel() -> None:
    met, btrfs = _cell(State.MET, "", A="met", B="met"), _cell(State.MET, "", A="met", B="violated")
    rows = [
        Row("5.10", "5.10.0", cells=[met, replace(met, name="btrfs")]),
        Row("6.1", "6.1.0", cells=[met, replace(btrfs, name="btrfs")]),
    ]
    table = ground_table(rows, "ext4").uneven()

    assert table.columns == ("ext4", "btrfs")
    assert [(line.name, line.values) for line in table.lines] == [
        ("B", ("met", "met on 5.10, violated on 6.1"))
    ]


def test_unmet_requirements_are_in_the_value_of_a_cell() -> None:
    rows = [Row("6.1", "6.1.0", cells=[_cell(State.MET, "", A="met", B="violated")])]

    assert [line.values for line in cell_table(rows).lines] == [("met, 1 violated",)]
    assert "violated, no MUST: B, ext4 on 6.1" in list(lines(rows))


def test_the_terminal_names_differences_failures_and_what_did_not_run() -> None:
    text = "\n".join(lines(ROWS))

    assert "DIFFERENT: ext4 on 7.3: C violated" in text
    assert "6.1: FAILED: 6.1: vagrant up did not end" in text
    assert "3.16: not run: takes internet" in text
    assert text.endswith("2 kernels ran, different: 7.3; failed: 6.1; not run: 3.16")


def test_markdown_has_one_table_row_per_kernel() -> None:
    text = as_markdown(ROWS, "ext4")

    assert "| 3.16 | - | 0 | not run: takes internet |" in text
    assert "| 7.3 | 7.3.4 | 90 | different |" in text
    assert "7.3: not-provable → met" in text


def test_the_page_is_whole_escaped_and_needs_nothing_else() -> None:
    page = as_page(ROWS, "ext4")
    seen: list[tuple[str, dict[str, str | None]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, dict(attrs)))

    Parser().feed(page)
    assert "&lt;A&gt; &amp; so on" in page
    assert [attrs for _, attrs in seen if {"src", "href"} & attrs.keys()] == []
    assert "2 kernels ran, 1 came out otherwise than expected; 2 did not run" in page
    values = [a for tag, a in seen if tag == "td" and "changed" in (a.get("class") or "")]
    assert len(values) == 4, "the cell; A, in both tables of requirements; userns.overlay"
