"""The table and the charts of docs/performance.md, generated from a result file only."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks import chart
from benchmarks.comparison import Row, Verdict
from benchmarks.result import Result

__all__ = ["markdown", "table", "terminal", "update"]

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_MEMORY = 8.0


def update(result: Result, page: Path) -> None:
    """Replace the text between the markers of the page, and write the charts beside it."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} lacks {BEGIN} or {END}")
    page.write_text(f"{before}{BEGIN}\n\n{markdown(result)}\n{END}{after}")
    for name, svg in _charts(result):
        page.with_name(name).write_text(svg)


def markdown(result: Result) -> str:
    """Return heading, table and charts."""
    setup = ", ".join(f"{name} {version}" for name, version in result.setup.items())
    lines = [
        f"{result.rounds} rounds, candidates in rotated order; {setup}.",
        f"The machine was {result.evenness}.",
        "",
        *table(result),
        "",
    ]
    lines += [f"![{name}]({name})\n" for name, _ in _charts(result)]
    return "\n".join(lines)


def table(result: Result) -> Iterator[str]:
    """Yield the lines of the table of aims."""
    yield "| work | medians | aim | measured (quartiles) | |"
    yield "|---|---|---|---|---|"
    for row in result.rows:
        medians = "; ".join(
            f"{name} {chart.milliseconds(row.median(name) or 0.0)}" for name in row.seconds
        )
        for number, (aim, measured, verdict) in enumerate(_aims(row)):
            work = ("", "") if number else (row.title, medians or row.reason)
            yield f"| {' | '.join((*work, aim, measured, verdict))} |"
    for verb, mebibytes in result.memory.items():
        verdict = Verdict.MET if mebibytes < _MEMORY else Verdict.MISSED
        measured = f"{mebibytes:.1f} MiB above idle"
        yield f"| memory, {verb} | | under {_MEMORY:g} MiB | {measured} | {verdict} |"


def terminal(row: Row) -> str:
    """Return a row as lines for a terminal."""
    if row.reason:
        return f"{row.title}\n    not measured: {row.reason}"
    times = "  ".join(
        f"{name} {chart.milliseconds(row.median(name) or 0.0)}" for name in row.seconds
    )
    aims = [f"    aim {aim}: {measured}, {verdict}" for aim, measured, verdict in _aims(row) if aim]
    return "\n".join([row.title, f"    {times}", *aims])


def _aims(row: Row) -> Iterator[tuple[str, str, str]]:
    """Yield each aim of a row, the measured value and the verdict; one empty aim if it has none."""
    for aim in row.aims:
        ratio = row.ratio(aim.who, aim.against)
        median = row.median(aim.who)
        if aim.milliseconds:
            measured = chart.milliseconds(median) if median is not None else ""
        else:
            measured = str(ratio or "")
        mark = "" if aim.who == "overlay2" else f" ({aim.who})"
        yield f"{aim}{mark}", measured, row.verdict(aim)
    if not row.aims:
        names = list(row.seconds)
        ratio = row.ratio(names[0], names[1]) if len(names) > 1 else None
        measured = f"{ratio} of {names[1]}" if ratio else ""
        yield "", measured, Verdict.NOT_MEASURED if row.reason else ""


def _charts(result: Result) -> Iterator[tuple[str, str]]:
    if any(len(row.seconds) > 1 for row in result.rows):
        yield "performance.svg", chart.bars(result.rows)
    for axis in result.axes:
        yield f"performance-{axis.unit}.svg", chart.lines(axis)
