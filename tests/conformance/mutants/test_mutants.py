"""Every broken driver is caught by the requirements it breaks; the sound ones are conformant."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graphdriver_conformance.mutants import MUTANTS
from graphdriver_conformance.mutants.__main__ import document
from graphdriver_conformance.requirement import catalogue


def _judged(spec: str, directory: Path, *options: str) -> dict[str, str]:
    report = directory / "report.json"
    command = [sys.executable, "-m", "pytest", f"--driver={spec}", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", f"--graphdriver-report={report}", *options]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert report.exists(), done.stdout + done.stderr
    rows = json.loads(report.read_text())["requirements"]
    return {row["id"]: row["outcome"] for row in rows}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_caught(name: str, tmp_path: Path) -> None:
    breaks = MUTANTS[name].breaks

    outcomes = _judged(MUTANTS[name].spec(), tmp_path, *(f"--requirement={id}" for id in breaks))

    assert dict.fromkeys(breaks, "violated") == {id: outcomes[id] for id in breaks}


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_sound_driver_is_conformant(driver: str, tmp_path: Path) -> None:
    outcomes = _judged(driver, tmp_path, "--graphdriver-profile=quick")

    assert set(outcomes.values()) <= {"met", "not-claimed"}


def test_mutants_name_requirements_that_exist_and_real_bugs() -> None:
    assert 15 <= len(MUTANTS)
    for name, mutant in MUTANTS.items():
        assert mutant.breaks, name
        assert mutant.bug, name
        assert mutant.__doc__, name
        assert set(mutant.breaks) <= set(catalogue()), name


def test_page_of_mutants_is_what_the_code_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "mutants.md"

    assert document() == page.read_text(), (
        "python -m graphdriver_conformance.mutants > docs/mutants.md"
    )
