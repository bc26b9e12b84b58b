"""`graphdriver list`: the requirements, one a line."""

import argparse

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.cli.unknown import say_unknown

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Print those whose id begins so; 4 when there are none."""
    parser = argparse.ArgumentParser("graphdriver list", description=__doc__)
    parser.add_argument("prefix", nargs="?", default="", help="only ids that begin so")
    prefix = parser.parse_args(arguments).prefix
    chosen = [one for one in catalogue().values() if one.id.startswith(prefix)]
    for one in chosen:
        print(f"{one.id}  {one.level:<6}  {one.title}")
    return 0 if chosen else say_unknown(prefix)
