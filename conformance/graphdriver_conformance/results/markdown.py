"""The report as Markdown: for a job's summary, a pull request, a wiki."""

from collections.abc import Sequence

from graphdriver_conformance.results.grid import Row, labels, rows_of
from graphdriver_conformance.results.model import Outcome, RunResult
from graphdriver_conformance.results.text import finding

__all__ = ["markdown"]

_SIGNS = {
    "met": "✅",
    "violated": "❌",
    "error": "💥",
    "blocked": "⛔",
    "waived": "🟡",
    "not-provable": "❔",
    "not-claimed": "○",
    "not-selected": "·",
    "absent": " ",
}
_LEVELS = ("MUST", "SHOULD", "MAY")


def markdown(runs: Sequence[RunResult]) -> str:
    """Return the verdicts, the requirements that need a look, and how they failed."""
    names = labels(runs)
    rows = rows_of(runs)
    parts = ["# Conformance", "", *_verdicts(runs, names)]
    seen = [row for row in rows if row.is_worth_a_look or row.differs]
    if seen:
        parts += ["", "## Not met everywhere", "", *_matrix(seen, names)]
        parts += [line for row in seen for line in _failures(row, names)]
    return "\n".join(parts) + "\n"


def _verdicts(runs: Sequence[RunResult], names: list[str]) -> list[str]:
    lines = ["| run | verdict | MUST met | SHOULD met | violated | not claimed | where |"]
    lines.append("|---|---|--:|--:|--:|--:|---|")
    for run, name in zip(runs, names, strict=True):
        counts = [
            run.count("MUST", Outcome.MET),
            run.count("SHOULD", Outcome.MET),
            sum(run.count(level, Outcome.VIOLATED) for level in _LEVELS),
            sum(run.count(level, Outcome.NOT_CLAIMED) for level in _LEVELS),
        ]
        numbers = " | ".join(map(str, counts))
        where = f"{run.where.kernel}, {run.where.filesystem}, {run.where.user}"
        lines.append(f"| {_cell(name)} | **{run.verdict.value}** | {numbers} | {_cell(where)} |")
    return lines


def _matrix(rows: Sequence[Row], names: list[str]) -> list[str]:
    lines = [f"| requirement | level | {' | '.join(map(_cell, names))} |"]
    lines.append(f"|---|---|{':-:|' * len(names)}")
    for row in rows:
        signs = " | ".join(f"{_SIGNS[one]} {one}".strip() for one in row.words)
        lines.append(f"| {row.id}: {_cell(row.title)} | {row.level} | {signs} |")
    return lines


def _failures(row: Row, names: list[str]) -> list[str]:
    lines: list[str] = []
    for cell, name in zip(row.cells, names, strict=True):
        if cell and cell.outcome in (Outcome.VIOLATED, Outcome.ERROR):
            fence = "~~~~"
            lines += ["", f"### {row.id} on {name}", "", row.title, "", fence]
            lines += [*finding(cell), fence, "", f"`{cell.reproduce}`"]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
