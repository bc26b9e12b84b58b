"""The report as Markdown: for the summary of a CI job, a pull request, a wiki."""

import re
from collections.abc import Iterable, Iterator, Sequence

from graphdriver_conformance.results.diff import Difference, explanation
from graphdriver_conformance.results.grid import Row, in_order, labels, rows_of, when
from graphdriver_conformance.results.model import Ended, Outcome, RequirementResult, RunResult
from graphdriver_conformance.results.printable import printable

__all__ = ["diff_markdown", "markdown"]

_SIGNS = {
    "met": "✅",
    "violated": "❌",
    "error": "💥",
    "blocked": "⛔",
    "waived": "🟡",
    "not-provable": "❔",
    "not-claimed": "○",
    "not-selected": "·",
    "absent": "-",
}
_LEVELS = ("MUST", "SHOULD", "MAY")


def markdown(runs: Sequence[RunResult]) -> str:
    """Return the verdicts, the requirements that need attention, and their failures."""
    ordered = in_order(runs)
    names = labels(ordered)
    seen = [row for row in rows_of(ordered) if row.needs_attention or row.differs]
    lines = ["# Conformance", "", *_verdicts(ordered, names), *_notices(ordered, names)]
    if seen:
        lines += ["", "## Not met everywhere", "", *_matrix(seen, names)]
        lines += [line for row in seen for line in _failures(row, names)]
    return _joined(lines)


def diff_markdown(differences: Sequence[Difference]) -> str:
    """Return the differences between older and newer runs."""
    return _joined(line for difference in differences for line in _difference(difference))


def _verdicts(runs: Sequence[RunResult], names: list[str]) -> Iterator[str]:
    yield "| run | verdict | MUST met | SHOULD met | violated | not claimed | where | when |"
    yield "|---|---|--:|--:|--:|--:|---|---|"
    for run, name in zip(runs, names, strict=True):
        counts = [
            run.count("MUST", Outcome.MET),
            run.count("SHOULD", Outcome.MET),
            sum(run.count(level, Outcome.VIOLATED) for level in _LEVELS),
            sum(run.count(level, Outcome.NOT_CLAIMED) for level in _LEVELS),
        ]
        numbers = " | ".join(map(str, counts))
        options = f", {', '.join(run.driver.options)}" if run.driver.options else ""
        where = f"{run.where.kernel}, {run.where.filesystem}, {run.where.user}{options}"
        date = f"{when(run)}, suite {run.suite}, {run.run.profile}"
        yield (
            f"| {_cell(name)} | **{run.verdict.value}** | {numbers} | {_cell(where)} | "
            f"{_cell(date)} |"
        )


def _notices(runs: Sequence[RunResult], names: list[str]) -> Iterator[str]:
    """State the runs whose driver could not be created, and those that did not finish."""
    for run, name in zip(runs, names, strict=True):
        if error := run.driver.init_error:
            yield from ("", f"**{_cell(name)}**: Init failed: {_cell(error.kind)}:")
            yield from ("", *_fenced([error.message]))
        if run.run.ended is not Ended.FINISHED:
            yield from ("", f"**{_cell(name)}**: the run was not finished ({run.run.ended}).")
        elif not run.run.complete:
            yield from ("", f"**{_cell(name)}**: the run is not complete.")


def _matrix(rows: Sequence[Row], names: list[str]) -> Iterator[str]:
    yield f"| requirement | level | {' | '.join(map(_cell, names))} |"
    yield f"|---|---|{':-:|' * len(names)}"
    for row in rows:
        signs = " | ".join(f"{_SIGNS[one]} {one}" for one in row.words)
        yield f"| {_cell(row.id)}: {_cell(row.title)} | {row.level} | {signs} |"


def _failures(row: Row, names: list[str]) -> Iterator[str]:
    for cell, name in zip(row.cells, names, strict=True):
        if cell and cell.outcome in (Outcome.VIOLATED, Outcome.ERROR):
            yield from ("", f"### {_cell(row.id)} ({row.level}) on {_cell(name)}", "")
            yield from (_cell(row.title), "", *_finding(cell))


def _finding(cell: RequirementResult) -> list[str]:
    script = [f"script:    {cell.script}"] * bool(cell.script)
    return _fenced([*explanation(cell), *script])


def _difference(difference: Difference) -> Iterator[str]:
    old, new = difference.old, difference.new
    yield f"# {_cell(new.driver.spec)}: {difference.summary}"
    yield from ("", "| | old | new |", "|---|---|---|")
    yield f"| verdict | **{old.verdict.value}** | **{new.verdict.value}** |"
    yield f"| date | {_cell(when(old))} | {_cell(when(new))} |"
    for facts in difference.circumstances:
        yield f"| {' | '.join(map(_cell, facts))} |"
    for title, changes in difference.groups:
        yield from ("", f"## {title} ({len(changes)})", "")
        yield from ("| requirement | level | old | new |", "|---|---|:-:|:-:|")
        for change in changes:
            words = " | ".join(f"{_SIGNS[one]} {one}" for one in change.words)
            row = change.row
            yield f"| {_cell(row.id)}: {_cell(row.title)} | {row.level} | {words} |"
        for change in changes:
            if change.new and change.new.outcome in (Outcome.VIOLATED, Outcome.ERROR):
                yield from ("", f"### {_cell(change.row.id)}", "", *_finding(change.new))
    for name, ids in (("old", difference.tested_before), ("new", difference.tested_now)):
        if ids:
            yield from ("", f"Asked only in the {name} run: {', '.join(ids)}.")
    yield ""


def _fenced(lines: Sequence[str]) -> list[str]:
    """Return the lines unchanged, in a fence that none of them can end."""
    longest = max((len(found) for line in lines for found in re.findall("~+", line)), default=0)
    fence = "~" * max(4, longest + 1)
    return [fence, *lines, fence]


def _cell(text: str) -> str:
    """Escape a text of a driver or a machine for Markdown, in one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", plain)


def _joined(lines: Iterable[str]) -> str:
    return printable("\n".join(lines)) + "\n"
