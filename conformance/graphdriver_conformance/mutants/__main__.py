"""`python -m graphdriver_conformance.mutants` prints docs/mutants.md.

`... kills [NAME ...]` runs the whole suite against mutants; `... kill-table` prints
docs/kill-table.md.
"""

import argparse
import os
import sys

from graphdriver_conformance.mutants import MUTANTS, kills
from graphdriver_conformance.requirement import catalogue
from graphdriver_conformance.variants import VARIANTS

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


_VARIANTS = """
## Drivers that are not broken

These do something in another way that is right as well; the suite must not complain
(`tests/conformance/mutants/test_variants.py`). Run one with
`pytest --driver=graphdriver_conformance.variants:NAME`.

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


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m graphdriver_conformance.mutants")
    parser.add_argument("what", nargs="?", default="page", choices=("page", "kills", "kill-table"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run; all without any")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--missing", action="store_true", help="only those never run")
    arguments = parser.parse_args()
    if arguments.what == "page":
        print(document(), end="")
    elif arguments.what == "kill-table":
        print(kills.page(), end="")
    else:
        done = kills.read() if arguments.missing else ()
        names = [one for one in arguments.names or sorted(MUTANTS) if one not in done]
        for count, (name, violated) in enumerate(kills.update(names, arguments.jobs), 1):
            said = "could not be run" if violated is None else " ".join(violated)
            print(f"{count}/{len(names)} {name}: {said}", file=sys.stderr)


if __name__ == "__main__":
    _main()
