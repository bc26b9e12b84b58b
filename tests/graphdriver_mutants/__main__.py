"""`python -m graphdriver_mutants` writes the files that are generated from the broken drivers.

`... kills [NAME ...]` runs the whole suite against them first, for the kill table.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.shard import Shard
from graphdriver_mutants import MUTANTS, kills
from graphdriver_mutants.variants import VARIANTS

__all__ = ["by_requirement", "document", "generated"]

_ROOT = Path(__file__).parents[2]

_HEAD = """# Broken drivers

What proves that the suite can see: each of these drivers is sound but for one bug that some driver
really had, and each is caught by the requirements named (`tests/conformance/mutants`). Run one with
`pytest --driver=graphdriver_mutants:NAME`, one of the wire (WIR) with
`pytest --driver="plugin+exec:python -m graphdriver_mutants.wire_server NAME"`. This
page is written by `python -m graphdriver_mutants`.

| mutant | what it does | where the bug was real | caught by |
|---|---|---|---|
"""


_VARIANTS = """
## Drivers that are not broken

These do something in another way that is right as well; the suite must not complain
(`tests/conformance/mutants/test_variants.py`). Run one with
`pytest --driver=graphdriver_mutants.variants:NAME`.

| variant | what it does | asked | not followed |
|---|---|---|---|
"""


def document() -> str:
    """Return the page: every mutant, what is not covered by one, and the variants."""
    rows = [
        f"| {name} | {(one.__doc__ or '').strip()} | {one.bug} | {', '.join(one.breaks)} |\n"
        for name, one in sorted(MUTANTS.items(), key=lambda pair: (pair[1].breaks, pair[0]))
    ]
    broken = {id for one in MUTANTS.values() for id in one.breaks}
    left = [id for id in catalogue() if id not in broken]
    unbroken = f" Not broken by any yet: {', '.join(left)}." if left else ""
    return (
        f"{_HEAD}{''.join(rows)}\n{len(MUTANTS)} mutants break {len(broken)} of {len(catalogue())} "
        f"requirements.{unbroken}\n"
        + _VARIANTS
        + "".join(
            f"| {name} | {(one.__doc__ or '').strip()} | {', '.join(one.asks)} "
            f"| {', '.join(one.departs)} |\n"
            for name, one in sorted(VARIANTS.items())
        )
    )


def by_requirement() -> str:
    """Return the file that `graphdriver explain` reads: broken drivers by requirement, as JSON."""
    found: dict[str, list[dict[str, str]]] = {}
    for name, one in sorted(MUTANTS.items()):
        for id in one.breaks:
            row = {"name": name, "does": (one.__doc__ or "").strip(), "bug": one.bug}
            found.setdefault(id, []).append(row)
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def generated() -> dict[Path, str]:
    """Return every file that is generated from the broken drivers, and its text."""
    return {
        _ROOT / "docs/mutants.md": document(),
        _ROOT / "docs/kill-table.md": kills.page(),
        _ROOT / "conformance/graphdriver_conformance/catalogue/broken_drivers.json": (
            by_requirement()
        ),
    }


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m graphdriver_mutants", description=__doc__)
    parser.add_argument("command", nargs="?", default="pages", choices=("pages", "kills"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run; all without any")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--missing", action="store_true", help="only those never run")
    parser.add_argument(
        "--shard", type=Shard.parse, default=Shard(1, 1), metavar="I/N", help="the Ith of N shares"
    )
    arguments = parser.parse_args()
    if arguments.command == "kills":
        done = kills.read() if arguments.missing else ()
        names = [one for one in arguments.names or sorted(MUTANTS) if one not in done]
        names = sorted(arguments.shard.of(names))
        for count, (name, violated) in enumerate(kills.update(names, arguments.jobs), 1):
            result = "could not be run" if violated is None else " ".join(violated)
            print(f"{count}/{len(names)} {name}: {result}", file=sys.stderr)
    for path, text in generated().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    _main()
