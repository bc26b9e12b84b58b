"""Each broken driver violates the requirements it breaks; the correct drivers are conformant."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_mutants import MUTANTS
from graphdriver_mutants.__main__ import generated
from graphdriver_mutants.judgement import Judge, judge


@pytest.fixture(scope="session")
def judges() -> Iterator[Judge]:
    with Judge() as judges:
        yield judges


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_caught(name: str, judges: Judge) -> None:
    breaks, needs = MUTANTS[name].breaks, MUTANTS[name].needs
    if needs.startswith("/") and not os.access(needs, os.R_OK | os.W_OK):
        pytest.skip(f"needs {needs}, which this machine lacks, or keeps from us")

    broken = MUTANTS[name]
    # Drivers that quick detects need no second run; the others need more examples.
    outcomes = judges.submit(judge, broken.spec(), breaks, "quick", broken.deadline).result()
    if rest := [id for id in breaks if outcomes[id] != "violated"]:
        more = judges.submit(judge, broken.spec(), rest, "default", broken.deadline).result()
        outcomes |= {id: more[id] for id in rest}

    if needs and set(outcomes.values()) <= {"not-provable", "not-claimed"}:
        pytest.skip(f"needs {needs}, which this machine lacks")
    assert {id: outcomes[id] for id in breaks} == dict.fromkeys(breaks, "violated")


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_correct_driver_is_conformant(driver: str, judges: Judge) -> None:
    outcomes = judges.submit(judge, driver, (), "quick").result()

    # These requirements need test disks that cannot be created on every machine.
    rare = {id: outcomes.pop(id) for id in ("INI-020", "INI-021")}
    assert set(outcomes.values()) <= {"met", "not-claimed"}
    assert set(rare.values()) <= {"met", "not-provable"}


def test_mutants_name_requirements_that_exist_and_real_bugs() -> None:
    assert len(MUTANTS) >= 15
    for name, mutant in MUTANTS.items():
        assert mutant.breaks, name
        assert mutant.bug, name
        assert mutant.__doc__, name
        assert set(mutant.breaks) <= set(catalogue()), name


@pytest.mark.parametrize("path", generated(), ids=lambda path: str(path.name))
def test_generated_file_is_up_to_date(path: Path) -> None:
    assert generated()[path] == path.read_text("utf-8"), "run python -m graphdriver_mutants"
