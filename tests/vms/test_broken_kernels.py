"""broken_kernels.toml, and the evaluation of broken kernels."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from graphdriver_vms.broken_run import Finding, cell_of, findings_of
from graphdriver_vms.cells import load_cells
from graphdriver_vms.errors import CannotBuild
from graphdriver_vms.images.broken import UNMODIFIED, load_broken
from graphdriver_vms.results.judge import Cell, Row, State
from graphdriver_vms.results.result import Entry, Result


def test_each_has_an_existing_requirement_and_cell() -> None:
    command = [sys.executable, "-m", "graphdriver_conformance", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = {line.split()[0] for line in listed.splitlines() if line.strip()}
    broken = load_broken()

    assert len(broken) >= 8
    assert {one.requirement for one in broken.values()} - known == set()
    assert {one.cell for one in broken.values()} - set(load_cells()) == set()
    assert [one.name for one in broken.values() if one.before == one.after] == []
    assert len({(one.file, one.before, one.after) for one in broken.values()}) == len(broken)


def test_bug_replaces_text_that_occurs_once() -> None:
    bug = next(iter(load_broken().values()))
    place = bug.before.strip("\n")

    assert bug.edited(f"a\n{place}\nb") == f"a\n{bug.after}\nb"
    for text in ("a", f"{place}\n{place}"):
        with pytest.raises(CannotBuild, match="adapt broken_kernels"):
            bug.edited(text)


@pytest.mark.parametrize(
    ("unmodified", "broken", "is_caught"),
    [
        ("met", "violated", True),
        ("met", "met", False),
        ("violated", "violated", False),
        ("not-provable", "violated", False),
        ("met", None, False),
    ],
)
def test_broken_kernel_is_caught_by_its_requirement_only(
    unmodified: str, broken: str | None, is_caught: bool
) -> None:
    bug = next(iter(load_broken().values()))

    def row(name: str, outcome: str) -> Row:
        result = Result((Entry(bug.requirement, "MUST", "title", outcome),))
        cell = Cell(bug.name, "overlay2", State.MET, "", result=result)
        return Row(name, cells=[cell])

    after = row(bug.name, broken) if broken else Row(bug.name, problem="panic", failed=True)

    findings = findings_of(bug, row(UNMODIFIED, unmodified), after)
    assert is_caught is Finding(bug, *findings).is_caught


def test_cell_of_a_bug_tests_its_requirement_only() -> None:
    bug = replace(next(iter(load_broken().values())), cell="redirect_dir")

    cell = cell_of(bug)

    assert (cell.name, cell.requirements) == (bug.name, [bug.requirement])
    assert cell.parameters == {"redirect_dir": "Y"}


def test_duplicate_names_are_refused(tmp_path: Path) -> None:
    entry = "\n".join(
        f'{key} = "x"'
        for key in ("name", "about", "bug", "file", "before", "after", "requirement", "cell")
    )
    file = tmp_path / "broken.toml"
    file.write_text(f"[[broken]]\n{entry}\n[[broken]]\n{entry}\n")

    with pytest.raises(ValueError, match="twice"):
        load_broken(file)
