"""The report as Markdown, for documents and job summaries."""

from collections.abc import Iterator, Sequence

from graphdriver_vms.results.judge import Row
from graphdriver_vms.results.tables import (
    Table,
    cell_table,
    changes,
    fact_table,
    ground_table,
    requirement_table,
)

__all__ = ["as_markdown"]


def as_markdown(rows: Sequence[Row], main_cell: str) -> str:
    """Return kernels, cells, changed requirements and changed facts."""
    ran = [row for row in rows if row.cells]
    requirements = requirement_table(ran, main_cell)
    parts = [
        *_kernels(rows),
        *_section("Cells", cell_table(ran)),
        *_section(
            f"Requirements that changed ({main_cell}; {len(requirements.lines)} looked at)",
            requirements.uneven(),
        ),
        *_section(
            "Requirements that differ between file systems, parameters and users",
            ground_table(ran, main_cell).uneven(),
        ),
        *_section("Facts that changed", fact_table(ran).uneven()),
    ]
    return "\n".join(parts) + "\n"


def _kernels(rows: Sequence[Row]) -> Iterator[str]:
    yield "| kernel | answered | seconds | |"
    yield "|---|---|---|---|"
    for row in rows:
        message = row.problem.partition("\n")[0] or (
            "different" if row.is_different else "as expected"
        )
        state = f"{'failed' if row.failed else 'not run'}: {message}" if row.problem else message
        yield f"| {row.name} | {row.release or '-'} | {row.seconds:.0f} | {_safe(state)} |"


def _section(title: str, table: Table) -> Iterator[str]:
    yield ""
    yield f"### {title}"
    yield ""
    if not table.lines:
        yield "None."
        return
    yield f"| | {' | '.join(table.columns)} | first change |"
    yield "|---" * (len(table.columns) + 2) + "|"
    for line in table.lines:
        first = (changes(line, table.columns) or [""])[0]
        values = " | ".join(map(_safe, line.values))
        yield f"| {_safe(line.name)} | {values} | {_safe(first)} |"
    yield ""
    yield from _remarks(table)


def _remarks(table: Table) -> Iterator[str]:
    """List the notes on single values, once each."""
    columns_of: dict[str, list[str]] = {}
    for line in table.lines:
        for column, value, detail in zip(
            table.columns, line.values, line.details or ("",) * len(line.values), strict=True
        ):
            if detail and value != "met":
                text = detail.strip().partition("\n")[0]
                columns_of.setdefault(f"{line.name}: {text}", []).append(column)
    for text, columns in columns_of.items():
        yield f"* {text} ({', '.join(columns)})"


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
