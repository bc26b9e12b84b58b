"""Every requirement of level MUST detects a broken driver."""

from graphdriver_conformance.catalogue.requirement import Level, catalogue
from graphdriver_mutants import kills


def test_every_must_detects_a_mutant_or_has_a_reason() -> None:
    caught = kills.killers()
    must = {id for id, one in catalogue().items() if one.level is Level.MUST}

    assert {id for id in must if not caught[id]} == set(kills.UNPROVEN), (
        "a requirement of level MUST needs a mutant that breaks it (mutants/), or a reason in "
        "kills.UNPROVEN why there is none"
    )
