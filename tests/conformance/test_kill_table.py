"""docs/kill-table.md is what the code says, and every requirement of level MUST is proven."""

from pathlib import Path

from graphdriver_conformance.mutants import kills
from graphdriver_conformance.requirement import Level, catalogue


def test_every_must_catches_a_mutant_or_says_why_not() -> None:
    caught = kills.killers()
    must = {id for id, one in catalogue().items() if one.level is Level.MUST}

    assert set(kills.UNPROVEN) == {id for id in must if not caught[id]}, (
        "a requirement of level MUST needs a mutant that breaks it (mutants/), or a reason in "
        "kills.UNPROVEN why there is none"
    )


def test_page_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "kill-table.md"

    assert kills.page() == page.read_text(), (
        "python -m graphdriver_conformance.mutants kill-table > docs/kill-table.md"
    )
