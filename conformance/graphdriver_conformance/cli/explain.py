"""`graphdriver explain`: one requirement."""

import argparse

from graphdriver_conformance.cli.unknown import say_unknown
from graphdriver_conformance.requirement import Requirement, catalogue

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Print what is known of the requirement; 4 when there is none of this id."""
    parser = argparse.ArgumentParser("graphdriver explain", description=__doc__)
    parser.add_argument("id", help="as `graphdriver list` shows it")
    id = parser.parse_args(arguments).id
    one = catalogue().get(id)
    if one is None:
        return say_unknown(id)
    print(_explained(one))
    return 0


def _explained(one: Requirement) -> str:
    rows = [
        f"{one.id}  {one.level}  (since {one.since})",
        "",
        one.title,
        "",
        f"why:       {one.why}",
        f"source:    {one.source}",
    ]
    if one.needs:
        rows.append(f"needs:     {', '.join(one.needs)}")
    if one.rests_on:
        rows.append(f"rests on:  {', '.join(one.rests_on)}")
    rows.append(f"run it:    pytest --driver=SPEC --requirement={one.id}")
    return "\n".join(rows)
