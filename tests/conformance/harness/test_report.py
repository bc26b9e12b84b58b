"""The report: one page, or Markdown, of many result files; and what comes of bad ones."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.results.grid import labels
from graphdriver_conformance.results.markdown import markdown
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.result_file import read_results, result_of

pytest_plugins = ["pytester"]


class _Elements(HTMLParser):
    """Every element's tag and attributes; complains of ends that close nothing."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert [] == self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.found if (value := attrs.get(attribute))]


def _graphdriver(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphdriver_conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_page_has_a_section_for_each_cell_and_leads_nowhere_else(
    violated: Path, tmp_path: Path
) -> None:
    done = _graphdriver("report", violated, violated.with_name("vfs.json"), "-o", tmp_path / "o")

    assert 0 == done.returncode, done.stderr
    text = (tmp_path / "o").read_text()
    elements = _Elements(text)
    ids = elements.values("id")
    rows = json.loads(violated.read_text())["requirements"]
    assert {f"{row['id']}.{run}" for row in rows for run in (0, 1)} <= set(ids)
    assert len(ids) == len(set(ids))
    targets = elements.values("href")
    assert [] == [one for one in targets if one[1:] not in ids]
    assert [] == elements.values("src")
    assert not re.search(r"url\(|@import|https?://", text)


def test_verdict_comes_first_and_the_violation_is_told(violated: Path) -> None:
    text = page(read_results([violated]))

    body = text[text.index("<body>") :]
    assert body.index("Not conformant") < body.index("<table class=")
    assert "the sibling differs from the layer" in body
    assert "--requirement=DIF-002" in body


def test_every_cell_says_in_words_what_its_sign_means(violated: Path) -> None:
    elements = _Elements(page(read_results([violated])))

    spoken = elements.values("aria-label")
    assert "DIF-002 on OpaqueDropped: violated" in spoken
    assert "DIF-001 on OpaqueDropped: not selected" in spoken


def test_what_a_driver_says_is_only_text(result: dict[str, Any]) -> None:
    hostile = "<script>alert(1)</script>\x00\x1b[31m\udc80"
    result["driver"] |= {"name": hostile, "status": [[hostile, hostile]]}
    result["requirements"][0] |= {
        "outcome": "violated",
        "actual": hostile,
        "program": [hostile],
        "reproduce": hostile,
    }

    text = page([result_of(result)])

    assert 1 == [tag for tag, _ in _Elements(text).found].count("script"), "only our own"
    text.encode()
    assert "\x1b" not in text


def test_twelve_runs_of_330_requirements_are_a_page_of_few_megabytes(
    result: dict[str, Any],
) -> None:
    rows = result["requirements"]
    result["requirements"] = [
        {**rows[number % len(rows)], "id": f"XYZ-{number:03}"} for number in range(330)
    ]
    runs = [
        result_of({**result, "environment": {**result["environment"], "kernel": f"6.{minor}"}})
        for minor in range(12)
    ]

    assert 3_000_000 > len(page(runs))
    assert "OpaqueDropped · 6.11" in labels(runs)


def test_markdown_has_the_verdicts_and_the_failures(violated: Path) -> None:
    done = _graphdriver("report", "--markdown", violated, violated.with_name("vfs.json"))

    assert 0 == done.returncode
    assert "| OpaqueDropped | **not-conformant** |" in done.stdout
    assert "### DIF-002 on OpaqueDropped" in done.stdout
    assert done.stdout == markdown(read_results([violated, violated.with_name("vfs.json")]))


def test_run_writes_its_own_page(pytester: pytest.Pytester) -> None:
    pytester.runpytest_subprocess(
        "--driver=vfs", "--requirement=LIF-001", "--graphdriver-html=o.html", "-p", "no:xdist"
    )

    assert "vfs" in (pytester.path / "o.html").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("", "is not JSON"),
        ("[1]", "is not a result file"),
        ('{"name": "npm"}', "is not a result file"),
        ('{"schema": 3, "requirements": []}', "this version reads 1 and 2"),
        ('{"schema": 1, "requirements": []}', "is not a whole result file"),
        ('{"schema": 2, "requirements": []}', "is not a whole result file"),
    ],
)
def test_foreign_file_is_one_sentence(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)

    done = _graphdriver("report", tmp_path / "r.json", "-o", tmp_path / "o.html")

    assert (4, "") == (done.returncode, done.stdout)
    assert words in done.stderr
    assert 1 == done.stderr.count("\n")


def test_page_that_cannot_be_written_is_one_sentence(violated: Path) -> None:
    done = _graphdriver("report", violated, "-o", "/no/such/place.html")

    assert 4 == done.returncode
    assert 1 == done.stderr.count("\n")


def test_report_without_a_place_to_go_says_what_to_name(violated: Path) -> None:
    done = _graphdriver("report", violated)

    assert 2 == done.returncode
    assert "-o OUT.html" in done.stderr
