"""The kill table: what the whole suite says of every mutant.

`kills.json` is written by a run that takes minutes; the page is made of it, and of what the mutants
declare. A mutant that no run has met yet counts with what it declares, which CI checks.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graphdriver_conformance.catalogue.requirement import Level, catalogue
from graphdriver_mutants.registry import MUTANTS

__all__ = ["UNPROVEN", "killers", "page", "read", "update"]

_FILE = Path(__file__).with_name("kills.json")
_LONGEST_RUN = 900
_MOST_NAMES = 12

UNPROVEN: dict[str, str] = {}
"""Requirements of level MUST that no mutant breaks, and why there is none."""

_HEAD = """# Kill table

Which broken drivers each requirement catches. In bold: the requirement is among those that the
mutant is there for, which CI checks in every run. The rest is what a run of the whole suite against
the mutant said, at the quick profile on tmpfs; a requirement that is `blocked` because one below it
was violated does not count. This page is written by `python -m graphdriver_mutants` from the
results of `python -m graphdriver_mutants kills --missing`: processor time of 10 to 20 seconds for
each mutant, of minutes for those of WIR, which are processes behind a socket.

"""


def read() -> dict[str, list[str]]:
    """Return the requirements that each mutant violated when it was last run."""
    found: dict[str, list[str]] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
    return {name: ids for name, ids in found.items() if name in MUTANTS}


def killers() -> dict[str, list[str]]:
    """Return for every requirement the mutants that it catches: as run, or else as declared."""
    ran = read()
    caught: dict[str, list[str]] = {id: [] for id in catalogue()}
    for name, mutant in sorted(MUTANTS.items()):
        for id in {*ran.get(name, ()), *mutant.breaks}:
            if id in caught:
                caught[id].append(name)
    return caught


def update(names: Iterable[str], jobs: int) -> Iterator[tuple[str, list[str] | None]]:
    """Run the whole suite against mutants and write down what it says, one after the other.

    None for one that could not be run: the others are, and it stays missing.
    """
    wanted = list(names)
    with ThreadPoolExecutor(jobs) as pool:
        for name, violated in zip(wanted, pool.map(_run, wanted), strict=True):
            if violated is not None:
                _write({**read(), name: violated})
            yield name, violated


def _write(table: dict[str, list[str]]) -> None:
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table))
    _FILE.write_text(f"{{\n{rows}\n}}\n")


def _run(name: str) -> list[str] | None:
    """Return what one mutant violates; a process of its own, since a broken driver may hang it."""
    judge = (
        "import json, sys; from graphdriver_mutants.judgement import judge; "
        "print(json.dumps(judge(sys.argv[1], (), 'quick', float(sys.argv[2]))))"
    )
    broken = MUTANTS[name]
    command = [sys.executable, "-c", judge, broken.spec(), str(broken.deadline)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=_LONGEST_RUN
        )
    except subprocess.SubprocessError:
        return None
    return sorted(id for id, what in json.loads(done.stdout).items() if what == "violated")


def page() -> str:
    """Return docs/kill-table.md."""
    caught, ran = killers(), len(read())
    text = (
        _HEAD
        + _summary(caught, ran)
        + "\n| requirement | level | caught | mutants |\n|---|---|--:|---|\n"
    )
    for id, names in caught.items():
        text += f"| {id} | {catalogue()[id].level} | {len(names)} | {_names(id, names)} |\n"
    if UNPROVEN:
        text += "\n## Without a mutant\n\n| requirement | why |\n|---|---|\n"
        text += "".join(f"| {id} | {why} |\n" for id, why in sorted(UNPROVEN.items()))
    return text


def _summary(caught: dict[str, list[str]], ran: int) -> str:
    must = [id for id, one in catalogue().items() if one.level is Level.MUST]
    proven = sum(bool(caught[id]) for id in must)
    others = sum(bool(names) for id, names in caught.items() if id not in must)
    return (
        f"{len(MUTANTS)} mutants, {ran} of them run against the whole suite so far. "
        f"{proven} of {len(must)} requirements of level MUST catch one, "
        f"and {others} of {len(caught) - len(must)} others.\n"
    )


def _names(id: str, names: list[str]) -> str:
    own = [f"**{name}**" for name in names if id in MUTANTS[name].breaks]
    others = [name for name in names if id not in MUTANTS[name].breaks]
    shown = (own + others)[: max(_MOST_NAMES, len(own))]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
