"""Legal variants of drivers are conformant: no false positives."""

from collections.abc import Iterator

import pytest

from graphdriver_conformance.catalogue.requirement import Level, catalogue
from graphdriver_mutants.judgement import Judge, judge
from graphdriver_mutants.variants import VARIANTS


@pytest.fixture(scope="module")
def judges() -> Iterator[Judge]:
    with Judge() as judges:
        yield judges


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_variant_is_conformant(name: str, judges: Judge) -> None:
    variant = VARIANTS[name]

    judged = judges.submit(judge, variant.spec(), variant.checked_by, "quick", variant.deadline)
    outcomes = judged.result()

    assert {id for id, what in outcomes.items() if what == "violated"} == set(variant.violates)
    assert {id for id, what in outcomes.items() if what == "not-provable"} == set(variant.unproven)
    left_out = (*variant.violates, *variant.unproven)
    others = {what for id, what in outcomes.items() if id not in left_out}
    assert others <= {"met", "not-claimed"}
    assert "met" in others


def test_variants_violate_no_must() -> None:
    levels = {catalogue()[id].level for variant in VARIANTS.values() for id in variant.violates}

    assert Level.MUST not in levels
