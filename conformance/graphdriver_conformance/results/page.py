"""The report as one self-contained page of HTML: no server, no network, no script to load.

The templates are beside this module. Jinja escapes all texts of drivers; the script only filters,
and the page's content security policy allows that script alone.
"""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from graphdriver_conformance.catalogue.requirement import Level
from graphdriver_conformance.results.diff import Difference
from graphdriver_conformance.results.grid import ABSENT, Row, in_order, labels, rows_of, when
from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    Reason,
    RequirementResult,
    RunResult,
    Verdict,
)
from graphdriver_conformance.results.printable import printable
from graphdriver_conformance.results.terminal import verdict_reasons

__all__ = ["diff_page", "page"]

_SIGNS = {
    Outcome.MET.value: ("✓", "met"),
    Outcome.VIOLATED.value: ("✗", "violated"),
    Outcome.ERROR.value: ("!", "error of the suite"),
    Outcome.BLOCKED.value: ("⊘", "blocked"),
    Outcome.WAIVED.value: ("w", "waived"),
    Outcome.NOT_PROVABLE.value: ("?", "not provable"),
    Outcome.NOT_CLAIMED.value: ("○", "not claimed"),
    Outcome.NOT_SELECTED.value: ("·", "not selected"),
    ABSENT: ("-", "not in this file"),
}
_MEANINGS = {
    Outcome.VIOLATED.value: "the driver breaks the requirement",
    Outcome.ERROR.value: "the suite itself failed",
    Outcome.BLOCKED.value: "rests on a requirement that is violated",
    Outcome.WAIVED.value: "violated, and known to be",
    Outcome.NOT_PROVABLE.value: "this environment cannot show it",
    Outcome.MET.value: "every test passed",
    Outcome.NOT_CLAIMED.value: "the driver does not have the capability",
    Outcome.NOT_SELECTED.value: "not asked in this run",
    ABSENT: "the suite of that run did not have it",
}
_VERDICTS = {
    Verdict.CONFORMANT: "Conformant",
    Verdict.NOT_CONFORMANT: "Not conformant",
    Verdict.INCONCLUSIVE: "Inconclusive",
}
# Blocks of a finding, in the order in which a reader needs them.
_BLOCKS = ("tree", "example", "notes", "program", "mounts", "output")
_LONG = 60
"""A block with more lines is folded."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A run on the page; `number` refers to it in the table of requirements."""

    number: int
    label: str
    result: RunResult

    @property
    def counts(self) -> dict[str, list[tuple[str, int]]]:
        """For each level of the run: outcomes and their numbers."""
        found = {}
        for level in Level:
            counts = [
                (outcome.value, self.result.count(level, outcome))
                for outcome in sorted(Outcome, key=list(_SIGNS).index)
                if outcome is not Outcome.NOT_SELECTED
            ]
            if some := [one for one in counts if one[1]]:
                found[level.value] = some
        return found

    @property
    def facts(self) -> dict[str, str]:
        """The facts by which runs are compared, by name."""
        run = self.result
        return {
            "Options": ", ".join(run.driver.options) or "none",
            "Kernel": run.where.kernel,
            "File system": run.where.filesystem,
            "User": run.where.user,
            "Date": when(run)[: len("2026-01-01 00:00")],
            "Suite": f"{run.suite}, catalogue {run.catalogue}",
            "Profile": f"{run.run.profile}, seed {run.run.seed}",
        }

    @property
    def more(self) -> list[tuple[str, str]]:
        """All other facts: the claims, the command, the status of driver and kernel."""
        run = self.result
        return [
            ("Driver", run.driver.name),
            ("Claims", _claims(run)),
            ("Machine", run.where.machine),
            ("Duration", f"{run.seconds:.1f} s, {run.run.processes} processes"),
            ("Home", run.run.home or "not named"),
            ("Command", shlex.join(run.run.command) or "not known"),
            *run.driver.status,
            *run.where.facts.items(),
        ]

    @property
    def notices(self) -> list[str]:
        """Sentences at the top of the page: Init failed, the run did not finish."""
        run = self.result
        found = []
        if error := run.driver.init_error:
            found.append(f"Init failed: {': '.join(filter(None, (error.kind, error.message)))}")
        lost = sum(one.reason is Reason.NOT_REPORTED for one in run.requirements.values())
        some = f"; {lost} requirement{'s' * (lost != 1)} did not report to the end" if lost else ""
        if run.run.ended is not Ended.FINISHED:
            how = "was interrupted" if run.run.ended is Ended.INTERRUPTED else "crashed"
            found.append(f"The run {how} before its end{some}.")
        elif not run.run.complete:
            found.append(f"The run is not complete{some}.")
        return found


def page(runs: Sequence[RunResult]) -> str:
    """Return the page for these runs. Raises ValueError when there is none."""
    if not runs:
        raise ValueError("no run to show")
    ordered = in_order(runs)
    rows = rows_of(ordered)
    names = labels(ordered)
    columns = [
        _Column(n, name, run) for n, (name, run) in enumerate(zip(names, ordered, strict=True), 1)
    ]
    facts = columns[0].facts
    varying = {
        name for name in facts if name == "Date" or len({one.facts[name] for one in columns}) > 1
    }
    present = {one for row in rows for one in row.words}
    groups = [
        ("Needs a look", [row for row in rows if row.needs_attention]),
        ("Met or not claimed", [r for r in rows if r.was_tested and not r.needs_attention]),
        ("Not selected", [row for row in rows if not row.was_tested]),
    ]
    return _rendered(
        "page.html",
        columns=columns,
        groups=[(title, rows) for title, rows in groups if rows],
        rows=rows,
        outcomes=[name for name in _SIGNS if name in present],
        counted=[one.value for one in Level if any(one in column.counts for column in columns)],
        levels=[one.value for one in Level if any(row.level == one for row in rows)],
        looks=any(row.needs_attention for row in rows),
        families=sorted({row.family for row in rows}),
        verdicts=[
            (verdict, count)
            for verdict in Verdict
            if (count := sum(run.verdict is verdict for run in runs))
        ],
        common={name: facts[name] for name in facts if name not in varying},
        varying=[name for name in facts if name in varying],
        meanings=_MEANINGS,
        script=_own("page.js"),
    )


def diff_page(differences: Sequence[Difference]) -> str:
    """Return the page of the differences between older and newer runs."""
    return _rendered("diff.html", differences=differences, script="")


def _claims(run: RunResult) -> str:
    if run.driver.capabilities is None:
        return "everything (it declares no capabilities)"
    return ", ".join(run.driver.capabilities) or "nothing"


def _findings(row: Row) -> list[tuple[list[int], RequirementResult]]:
    """Return each distinct finding with the numbers of its runs."""
    quiet = (Outcome.MET, Outcome.NOT_CLAIMED, Outcome.NOT_SELECTED)
    found: dict[RequirementResult, list[int]] = {}
    first: dict[RequirementResult, RequirementResult] = {}
    for number, cell in enumerate(row.cells, 1):
        if cell and cell.outcome not in quiet:
            same = replace(cell, seconds=0.0, examples=0)
            found.setdefault(same, []).append(number)
            first.setdefault(same, cell)
    return [(numbers, first[same]) for same, numbers in found.items()]


def _parts(cell: RequirementResult) -> list[tuple[str, str]]:
    """Return the short texts of a result, each with its name."""
    others = cell.failures - 1
    more = (
        f"{others} more test{'s' * (others > 1)} of this requirement failed" if others > 0 else ""
    )
    parts = [
        ("Rests on", ", ".join(cell.blocked_by)),
        ("Detail", cell.detail),
        ("Expected", cell.expected),
        ("Actual", cell.actual),
        ("Capability", cell.capability and f"the driver claims {cell.capability}"),
        ("Also", more),
        ("Home", cell.kept and f"kept in {cell.kept}"),
    ]
    return [(name, text) for name, text in parts if text]


def _blocks(cell: RequirementResult) -> list[tuple[str, tuple[str, ...]]]:
    """Return the blocks of lines of a finding, each with its name."""
    blocks = [(name.capitalize(), getattr(cell, name)) for name in _BLOCKS]
    blocks += [
        (name, (command,))
        for name, command in (("Reproduce", cell.reproduce), ("Script", cell.script))
        if command
    ]
    return [(name, lines) for name, lines in blocks if lines]


def _proof(cell: RequirementResult) -> str:
    """Return the details of the outcome: the kind of violation, the time, the examples."""
    plain = (
        *(Reason.MISMATCH, Reason.SELECTION, Reason.WAIVER, Reason.RESTS_ON),
        *(Reason.NO_CAPABILITY, Reason.ENVIRONMENT, Reason.SUITE),
    )
    is_unclaimed = cell.outcome is Outcome.NOT_CLAIMED and cell.capability
    parts = (
        cell.reason.value.replace("-", " ") if cell.reason and cell.reason not in plain else "",
        f"needs {cell.capability}" if is_unclaimed else "",
        "works although not claimed" if cell.works else "",
        f"{cell.seconds:.2f} s" if cell.examples or cell.seconds else "",
        f"{cell.examples} examples" if cell.examples > 1 else "",
    )
    return ", ".join(filter(None, parts))


@cache
def _own(name: str) -> str:
    return files("graphdriver_conformance.results").joinpath(name).read_text("utf-8")


def _rendered(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("graphdriver_conformance.results"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "blocks": _blocks,
        "digest": _digest,
        "findings_of": _findings,
        "verdict_reasons": verdict_reasons,
        "long": _LONG,
        "parts": _parts,
        "proof": _proof,
        "signs": _SIGNS,
        "style": _own("page.css"),
        "verdict_words": _VERDICTS,
        "when": when,
    }
    environment.filters["raw"] = Markup
    return environment


def _shown(value: object) -> object:
    """Return a value as text; the suite's own markup is kept."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(str(value))
    return value


def _digest(text: str) -> str:
    """Return the hash by which the page's content security policy identifies its script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
