"""The report as one self-contained HTML page."""

import html
from collections.abc import Iterator, Sequence

from graphdriver_vms.results.judge import Row
from graphdriver_vms.results.tables import (
    Line,
    Table,
    cell_table,
    changes,
    fact_table,
    ground_table,
    requirement_table,
)

__all__ = ["as_page"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #1c2330; background: #fff }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: .22rem .5rem; border: 1px solid #d9dee7; text-align: left; vertical-align: top }
thead th { background: #f2f4f8; position: sticky; top: 0 }
th.name { white-space: nowrap; font-weight: 600 } td.title { color: #4b5568 }
td.title.long { min-width: 16rem }
td.value { text-align: center; white-space: nowrap }
.good { background: #d8f0dc } .half { background: #fdf0c8 } .bad { background: #f8cdc8 }
.none { background: #eceff3; color: #5b6474 } .first { font-weight: 600; white-space: nowrap }
td.changed { outline: 2px solid #2858b8; outline-offset: -2px }
td.message { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 6.5rem }
p.note, details { color: #4b5568 } summary { cursor: pointer; margin: .6rem 0 }
@media (prefers-color-scheme: dark) {
  body { background: #14181f; color: #e4e8ef } th, td { border-color: #39414f }
  thead th { background: #222936 } td.title, p.note, details { color: #a8b2c2 }
  .good { background: #1d4a2a } .half { background: #574612 } .bad { background: #6d2620 }
  .none { background: #262c36; color: #97a1b1 } td.changed { outline-color: #7fa8f5 } }
"""
_SHORT_TITLE = 24
_CLASSES = {
    "met": "good",
    "refused": "good",
    "ok": "good",
    "yes": "good",
    "violated": "bad",
    "blocked": "bad",
    "error": "bad",
    "different": "bad",
    "not-provable": "half",
    "-": "none",
    "not-run": "none",
    "not-claimed": "none",
}


def as_page(rows: Sequence[Row], main_cell: str) -> str:
    """Return the page: verdict, kernels, cells, requirements, facts."""
    ran = [row for row in rows if row.cells]
    requirements = requirement_table(ran, main_cell)
    changed = requirements.uneven()
    grounds = ground_table(ran, main_cell).uneven()
    different = sum(row.is_different for row in rows)
    verdict = f"{len(ran)} kernels ran, {different} came out otherwise than expected"
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Kernel matrix</title><style>{_STYLE}</style>",
        f"<h1>Kernel matrix</h1><p>{verdict}; {len(rows) - len(ran)} did not run.</p>",
        "<h2>Kernels</h2>",
        *_kernels(rows),
        "<h2>File systems, overlay parameters, users</h2>",
        "<p class='note'>One run of the suite each. Hover over a value for details.</p>",
        *_table(cell_table(ran), "cell", "driver"),
        f"<h2>Requirements: where something changed ({main_cell})</h2>",
        *(_table(changed, "id", "requirement") if changed.lines else ["<p>Nowhere.</p>"]),
        f"<details><summary>All {len(requirements.lines)} requirements</summary>",
        *_table(requirements, "id", "requirement"),
        "</details>",
        "<h2>Requirements: where file systems, parameters and users differ</h2>",
        *(_table(grounds, "id", "requirement") if grounds.lines else ["<p>Nowhere.</p>"]),
        "<h2>What each kernel can</h2>",
        "<p class='note'>Found by trying: ok, or the error.</p>",
        *_table(fact_table(ran), "fact", ""),
        "</html>",
    ]
    return "\n".join(parts)


def _kernels(rows: Sequence[Row]) -> Iterator[str]:
    yield "<div class='scroll'><table><thead><tr><th>kernel<th>answered<th>seconds<th></tr></thead>"
    for row in rows:
        if row.problem:
            word, colour = ("failed" if row.failed else "not run"), "bad" if row.failed else "none"
        else:
            word, colour = ("different", "bad") if row.is_different else ("as expected", "good")
        text = f"{word}: {row.problem}" if row.problem else word
        yield (
            f"<tr><th class='name'>{_safe(row.name)}<td>{_safe(row.release or '-')}"
            f"<td>{row.seconds:.0f}<td class='message {colour}'>{_safe(text)}</tr>"
        )
    yield "</table></div>"


def _table(table: Table, name: str, title: str) -> Iterator[str]:
    heads = "".join(f"<th>{_safe(column)}" for column in table.columns)
    middle = f"<th>{title}" if title else ""
    long = " long" * any(len(line.title) > _SHORT_TITLE for line in table.lines)
    yield "<div class='scroll'><table><thead>"
    yield f"<tr><th>{name}{middle}{heads}<th>first change</tr></thead>"
    for line in table.lines:
        first = (changes(line, table.columns) or [""])[0]
        shown = f"<td class='title{long}'>{_safe(line.title)}" if title else ""
        yield f"<tr><th class='name'>{_safe(line.name)}{shown}{''.join(_values(line))}"
        yield f"<td class='first'>{_safe(first)}</tr>"
    yield "</table></div>"


def _values(line: Line) -> Iterator[str]:
    before = ""
    details = line.details or ("",) * len(line.values)
    for value, detail in zip(line.values, details, strict=True):
        word = value.partition(",")[0].partition(" on ")[0]
        colour = _CLASSES.get(word, "half" if word.isupper() else "none")
        if value.startswith(("met,", "met on ")):
            colour = "half"
        has_changed = bool(before) and value not in (before, "-")
        tip = f" title='{_safe(detail[:600])}'" if detail else ""
        changed = " changed" * has_changed
        yield f"<td class='value {colour}{changed}'{tip}>{_safe(value)}"
        before = before if value == "-" else value


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
