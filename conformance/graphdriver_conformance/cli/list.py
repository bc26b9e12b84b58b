"""List the requirements of the catalogue, or the capabilities that a driver may claim."""

import argparse
import json
from dataclasses import asdict

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.capabilities import claims
from graphdriver_conformance.catalogue.requirement import Level, Requirement, catalogue
from graphdriver_conformance.cli.unknown import report_unknown_id

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("prefix", nargs="?", default="", help="only ids with this prefix; case does not matter")
    add("--level", type=str.upper, choices=list(Level), help="only this level")
    add(
        "--capability",
        choices=list(Capability),
        metavar="C",
        help="only requirements of this capability",
    )
    add("--capabilities", action="store_true", help="list the capabilities instead")
    add("--json", action="store_true", help="as JSON, with all fields")


def run(options: argparse.Namespace) -> int:
    """Print the list; 4 if no id begins with the prefix."""
    if options.capabilities:
        return _list_capabilities(options.json)
    prefix = options.prefix.upper()
    named = [one for one in catalogue().values() if one.id.startswith(prefix)]
    if not named:
        return report_unknown_id(options.prefix)
    chosen = sorted((one for one in named if _is_chosen(one, options)), key=lambda one: one.id)
    if options.json:
        print(json.dumps([asdict(one) for one in chosen], indent=1, ensure_ascii=False))
    else:
        for one in chosen:
            print(f"{one.id}  {one.level:<6}  {one.title}")
    return 0


def _is_chosen(one: Requirement, options: argparse.Namespace) -> bool:
    return (not options.level or one.level == options.level) and (
        not options.capability or options.capability in one.needs
    )


def _list_capabilities(as_json: bool) -> int:
    rows = claims()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    width = max(len(row.capability) for row in rows)
    print(f"{'capability':<{width}}  asks  meaning")
    for row in rows:
        print(f"{row.capability:<{width}}  {len(row.requirements):>4}  {row.meaning}")
    return 0
