"""The capabilities that a driver may claim, and the requirements of each claim.

`python -m graphdriver_conformance.catalogue.capabilities` prints docs/capabilities.md.
"""

from dataclasses import dataclass

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import catalogue

__all__ = ["Claim", "claims", "document"]

_HEAD = """# Capabilities

A driver declares what it can do in an attribute `capabilities`, a set of these names; without the
attribute it claims all of them. A requirement that needs a capability is asked only of drivers that
claim it; all other requirements are asked of every driver. `graphdriver list --capability NAME`
lists the requirements of one. This page is printed by
`python -m graphdriver_conformance.catalogue.capabilities`.

| capability | meaning | requirements | of them MUST |
|---|---|--:|--:|
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A capability, its meaning, and the ids of the requirements that a claim of it selects."""

    capability: str
    meaning: str
    requirements: tuple[str, ...]
    must: int


def claims() -> list[Claim]:
    """Return every capability, in the order of the contract."""
    return [_claim(capability) for capability in Capability]


def document() -> str:
    """Return the page."""
    return _HEAD + "".join(
        f"| `{one.capability}` | {one.meaning} | {len(one.requirements)} | {one.must} |\n"
        for one in claims()
    )


def _claim(capability: Capability) -> Claim:
    asked = [one for one in catalogue().values() if capability in one.needs]
    return Claim(
        capability.value,
        capability.meaning,
        tuple(sorted(one.id for one in asked)),
        sum(one.level == "MUST" for one in asked),
    )


if __name__ == "__main__":
    print(document(), end="")
