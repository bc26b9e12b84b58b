"""`python -m graphdriver_conformance.mutants` prints docs/mutants.md."""

from graphdriver_conformance.mutants import MUTANTS
from graphdriver_conformance.requirement import catalogue

__all__ = ["document"]

_HEAD = """# Broken drivers

What proves that the suite can see: each of these drivers is sound but for one bug that some driver
really had, and each is caught by the requirements named (`tests/conformance/mutants`). Run one with
`pytest --driver=graphdriver_conformance.mutants:NAME`, one of the wire (WIR) with
`pytest --driver="plugin+exec:python -m graphdriver_conformance.mutants.wire_server NAME"`. This
page is printed by `python -m graphdriver_conformance.mutants`.

| mutant | what it does | where the bug was real | caught by |
|---|---|---|---|
"""


def document() -> str:
    """Return the page: every mutant, then what is not covered by one."""
    rows = [
        f"| {name} | {(one.__doc__ or '').strip()} | {one.bug} | {', '.join(one.breaks)} |\n"
        for name, one in sorted(MUTANTS.items(), key=lambda pair: (pair[1].breaks, pair[0]))
    ]
    broken = {id for one in MUTANTS.values() for id in one.breaks}
    left = [id for id in catalogue() if id not in broken]
    return (
        f"{_HEAD}{''.join(rows)}\n{len(MUTANTS)} mutants break {len(broken)} of {len(catalogue())} "
        f"requirements. Not broken by any yet: {', '.join(left)}.\n"
    )


if __name__ == "__main__":
    print(document(), end="")
