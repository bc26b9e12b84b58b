"""docs/real-drivers.md: which driver breaks what, in which version, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphdriver_conformance.catalogue.requirement import catalogue

from .expectations import Known, known_of
from .targets import TARGETS

__all__ = ["document"]

_INTRODUCTION = """# Other people's drivers

Made by `python -m tests.real`, which starts what has to run; each version is that of a Debian
suite, unpacked for the run. A violation is a *bug* of that driver, or a *difference*: documented,
or a decision that can be defended. What is known is stored in `tests/real/expectations/` by
requirement id, and CI compares. How each driver is reached: [stores.md](stores.md),
[plugins.md](plugins.md). Findings that can be reproduced without this project:
[findings/](findings/README.md). Our own driver stands first, for comparison.
"""
_LEGEND = """Times are of a machine that others
used, some of them heavily: they compare nothing. A call is `exists` of a layer that is not there.
In the tables below: B a bug, D a difference, b blocked (a requirement below it is violated), + met,
not claimed (-), ? not provable here, nothing: the requirement is newer than the run."""
_MARKS = {"met": "+", "not-claimed": "-", "not-provable": "?"}


@dataclass(frozen=True, slots=True)
class _Run:
    """One version of a driver: what was recorded, and what is known of its violations."""

    name: str
    record: Mapping[str, Any]
    known: Mapping[str, Known]

    @property
    def broken(self) -> dict[str, Known | None]:
        outcomes = self.record["outcomes"]
        bad = ("violated", "blocked")
        return {id: self.known.get(id) for id, outcome in outcomes.items() if outcome in bad}

    def mark(self, id: str) -> str:
        """Return the cell of a requirement."""
        if id in self.broken:
            known = self.broken[id]
            if self.record["outcomes"][id] == "blocked":
                return "b"
            return "D" if known and known.kind == "difference" else "B"
        return _MARKS.get(self.record["outcomes"].get(id, ""), "")


def document(record: Mapping[str, Any]) -> str:
    """Return the page."""
    drivers: dict[str, list[_Run]] = {}
    for name, target in TARGETS.items():
        if found := record["targets"].get(name):
            drivers.setdefault(target.driver, []).append(_Run(name, found, known_of(name)))
    parts = [_INTRODUCTION, *_summary(drivers)]
    for runs in drivers.values():
        parts += _driver(runs)
    return "\n".join(parts).rstrip() + "\n"


def _summary(drivers: Mapping[str, list[_Run]]) -> Iterator[str]:
    heads = ["driver", "version", "met", "bugs", "differences", "blocked", "not claimed"]
    yield f"| {' | '.join([*heads, 'not provable', 'time', 'a call'])} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for runs in drivers.values():
        for run in runs:
            counts = run.record["counts"]
            marks = [run.mark(id) for id in run.broken]
            row = [run.record["title"], run.record["version"], counts["met"]]
            row += [marks.count("B"), marks.count("D"), marks.count("b")]
            row += [counts["not-claimed"], counts["not-provable"]]
            row += [f"{run.record['seconds']} s", f"{run.record['call_ms']} ms"]
            yield f"| {' | '.join(map(str, row))} |"
    one = next(iter(drivers.values()))[0].record
    yield ""
    yield f"Kernel {one['kernel']}, profile {one['profile']}, two processes. {_LEGEND}"
    yield ""


def _driver(runs: list[_Run]) -> Iterator[str]:
    last = runs[-1].record
    yield f"## {last['title']}"
    yield ""
    words = " ".join(f"'{word}'" for word in (last["spec"], *last["options"]))
    yield f"`graphdriver check {words}`"
    yield ""
    ids = [id for id in catalogue() if any(id in run.broken for run in runs)]
    if not ids:
        yield "Nothing is violated."
        yield ""
        return
    yield f"| requirement | {' | '.join(_column(run) for run in runs)} | what happens |"
    yield f"|---|{'---|' * len(runs)}---|"
    for id in ids:
        requirement = catalogue()[id]
        cells = " | ".join(run.mark(id) for run in runs)
        notes = dict.fromkeys(_note(run.broken[id]) for run in runs if id in run.broken)
        what = "; ".join(notes).replace("|", "\\|")
        yield f"| {id} {requirement.title} | {cells} | {what} |"
    yield ""


def _column(run: _Run) -> str:
    return str(run.record.get("release") or run.record["version"])


def _note(known: Known | None) -> str:
    if known is None:
        return "not read yet"
    return f"{known.note} ({known.upstream})" if known.upstream else known.note
