"""The command `report`: text, a page or Markdown of result files; bad files; comparisons."""

import errno
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results import terminal
from graphdriver_conformance.results.grid import labels
from graphdriver_conformance.results.journal import Journal
from graphdriver_conformance.results.markdown import markdown
from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    RequirementResult,
    TestResult,
)
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.result_file import read_results, result_of

pytest_plugins = ["pytester"]


class _Elements(HTMLParser):
    """Collects tag and attributes of every element; fails on end tags without a start tag."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.found if (value := attrs.get(attribute))]


def _graphdriver(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphdriver_conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_page_has_a_section_for_each_cell_and_links_nowhere_else(
    violated: Path, tmp_path: Path
) -> None:
    done = _graphdriver("report", violated, violated.with_name("vfs.json"), "-o", tmp_path / "o")

    assert done.returncode == 0, done.stderr
    text = (tmp_path / "o").read_text()
    elements = _Elements(text)
    ids = elements.values("id")
    rows = json.loads(violated.read_text())["requirements"]
    assert {f"{row['id']}.{run}" for row in rows for run in (1, 2)} <= set(ids)
    assert len(set(ids)) == len(ids)
    targets = elements.values("href")
    assert targets[:1] == ["#requirements"]
    assert [one for one in targets if one[1:] not in ids] == []
    assert elements.values("src") == []
    assert not re.search(r"url\(|@import|https?://", text)


def test_verdict_comes_before_the_violation(violated: Path) -> None:
    text = page(read_results([violated]))

    body = text[text.index("<body>") :]
    assert body.index("Not conformant") < body.index("<table")
    assert "the sibling differs from the layer" in body
    assert "--requirement=DIF-002" in body


def test_every_cell_has_its_outcome_in_words(violated: Path) -> None:
    elements = _Elements(page(read_results([violated])))

    spoken = elements.values("aria-label")
    assert "DIF-002: violated" in spoken
    assert "DIF-001: not selected" in spoken


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

    assert len(page(runs)) < 3_000_000
    assert "graphdriver_mutants:OpaqueDropped · 6.11" in labels(runs)


def test_markdown_has_the_verdicts_and_the_failures(violated: Path) -> None:
    done = _graphdriver("report", "--markdown", violated, violated.with_name("vfs.json"))

    assert done.returncode == 0
    assert "| graphdriver_mutants:OpaqueDropped | **not-conformant** |" in done.stdout
    assert "### DIF-002 (MUST) on graphdriver_mutants:OpaqueDropped" in done.stdout
    assert markdown(read_results([violated, violated.with_name("vfs.json")])) == done.stdout


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

    assert (done.returncode, done.stdout) == (4, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_page_that_cannot_be_written_is_one_sentence(violated: Path) -> None:
    done = _graphdriver("report", violated, "-o", "/no/such/place.html")

    assert done.returncode == 4
    assert done.stderr.count("\n") == 1


def test_report_without_a_format_is_the_verdict_as_on_the_terminal(violated: Path) -> None:
    files = [violated.with_name("vfs.json"), violated]

    done = _graphdriver("report", *files)

    texts = ["".join(f"{line}\n" for line, _ in terminal.lines(run)) for run in read_results(files)]
    assert (done.returncode, done.stdout) == (0, "\n".join(texts))
    assert "NOT CONFORMANT" in done.stdout.splitlines()[-1]


def test_terminal_gets_colours(violated: Path) -> None:
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "graphdriver_conformance", "report", str(violated)]
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while found := os.read(ours, 65536):
                shown += found
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the other end of the terminal is closed
                raise
    os.close(ours)

    assert process.returncode == 0
    assert b"\x1b[31mVIOLATED  DIF-002" in shown


def test_text_that_no_terminal_can_show_is_escaped(result: dict[str, Any], tmp_path: Path) -> None:
    next(row for row in result["requirements"] if row["outcome"] == "violated")["actual"] = (
        "\x1b[2J\udc80 é"
    )
    (tmp_path / "r.json").write_text(json.dumps(result))

    for arguments in (["report"], ["report", "--markdown"], ["report", "-o", tmp_path / "o.html"]):
        done = _graphdriver(*arguments, tmp_path / "r.json")

        assert (done.returncode, done.stderr) == (0, "")
        text = done.stdout or (tmp_path / "o.html").read_text()
        assert r"\x1b[2J\udc80" in text


def _journal(path: Path, result: dict[str, Any], *, is_ended: bool) -> None:
    """Write the journal of a run of two drivers, in which one test of each was reported."""
    journal = Journal(path)
    heads = [
        result_of({**result, "driver": {**result["driver"], "spec": spec}})
        for spec in ("one", "two")
    ]
    for head in heads:
        journal.begin(head, path.parent)
    journal.collect({head.driver.spec: {"LIF-001": 1, "LIF-002": 1} for head in heads})
    met = RequirementResult.of(catalogue()["LIF-001"], Outcome.MET, examples=1)
    violated = RequirementResult.of(
        catalogue()["LIF-001"], Outcome.VIOLATED, actual="nothing there"
    )
    journal.add(TestResult("one", "test_a", met))
    journal.add(TestResult("two", "test_a", violated))
    if is_ended:
        journal.end(Ended.INTERRUPTED, 3.0)
    journal.close()


@pytest.mark.parametrize(("is_ended", "ended"), [(True, "interrupted"), (False, "crashed")])
def test_journal_of_two_drivers_is_two_runs(
    result: dict[str, Any], tmp_path: Path, is_ended: bool, ended: str
) -> None:
    path = tmp_path / "run.jsonl"
    _journal(path, result, is_ended=is_ended)
    if not is_ended:
        path.write_bytes(path.read_bytes() + b'{"test": {"spec": "one", "te')

    text = _graphdriver("report", path)
    marked = _graphdriver("report", "--markdown", path)
    made = _graphdriver("report", path, "-o", tmp_path / "o.html")

    assert (text.returncode, marked.returncode, made.returncode) == (0, 0, 0), text.stderr
    assert "one: INCONCLUSIVE" in text.stdout
    assert "two: NOT CONFORMANT" in text.stdout
    assert f"the run was {ended}" in text.stdout
    assert "| two | **not-conformant** |" in marked.stdout
    assert f'<span class="short-notice">{ended}</span>' in (tmp_path / "o.html").read_text()


def test_files_of_other_drivers_cannot_be_compared(violated: Path, tmp_path: Path) -> None:
    result = json.loads(violated.read_text())
    _journal(tmp_path / "run.jsonl", result, is_ended=True)

    done = _graphdriver("report", "--diff", violated, tmp_path / "run.jsonl")

    assert done.returncode == 4
    assert "the newer one of one, two" in done.stderr


@pytest.mark.parametrize("line", ["", '{"test": {"spec": "one"}}', '{"ended": "never"}', "[1]"])
def test_broken_journal_is_one_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / "run.jsonl").write_text(f'{{"graphdriver-journal": 1}}\n{line}\n')

    done = _graphdriver("report", tmp_path / "run.jsonl")

    assert (done.returncode, done.stdout) == (4, "")
    assert "is not a whole journal" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "markdown", "page"])
def test_difference_says_by_its_exit_code_whether_something_is_newly_violated(
    violated: Path, tmp_path: Path, form: str
) -> None:
    correct = violated.with_name("vfs.json")
    forms: dict[str, list[str | Path]] = {
        "text": [],
        "markdown": ["--markdown"],
        "page": ["-o", tmp_path / "o.html"],
    }
    extra = forms[form]

    worse = _graphdriver("report", "--diff", correct, violated, *extra)
    worse_text = worse.stdout or (tmp_path / "o.html").read_text()
    better = _graphdriver("report", "--diff", violated, correct, *extra)
    better_text = better.stdout or (tmp_path / "o.html").read_text()

    assert (worse.returncode, better.returncode) == (1, 0), worse.stderr + better.stderr
    assert "1 newly violated" in worse_text
    assert "the sibling differs from the layer" in worse_text
    assert "0 newly violated, 1 newly met" in better_text


def test_a_file_does_not_differ_from_itself(violated: Path) -> None:
    done = _graphdriver("report", "--diff", violated, violated)

    assert done.returncode == 0
    assert "0 newly violated, 0 newly met, 0 other changes, 0 changes" in done.stdout


@pytest.mark.parametrize("count", [1, 3])
def test_difference_is_of_two_files(violated: Path, count: int) -> None:
    done = _graphdriver("report", "--diff", *[violated] * count)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--diff takes two files" in done.stderr


def test_difference_to_a_foreign_file_is_one_sentence(violated: Path, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{}")

    done = _graphdriver("report", "--diff", violated, tmp_path / "r.json")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
