"""The report as one page of HTML that needs nothing else: no server, no network, no script to read.

The elements are built, not pasted together, so that whatever a driver says is escaped. The script
only filters.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from xml.etree import ElementTree

from graphdriver_conformance.results.grid import Row, labels, rows_of, word
from graphdriver_conformance.results.model import Outcome, RequirementResult, RunResult, Verdict
from graphdriver_conformance.results.text import finding

__all__ = ["page"]

_SIGNS = {
    "met": ("✓", "met"),
    "violated": ("✗", "violated"),
    "error": ("!", "error of the suite"),
    "blocked": ("⊘", "blocked by another violation"),
    "waived": ("w", "waived"),
    "not-provable": ("?", "not provable there"),
    "not-claimed": ("○", "not claimed"),
    "not-selected": ("·", "not selected"),
    "absent": (" ", "not in this file"),
}
_VERDICTS = {
    Verdict.CONFORMANT: "Conformant",
    Verdict.NOT_CONFORMANT: "Not conformant",
    Verdict.INCONCLUSIVE: "Inconclusive",
}
_LEVELS = ("MUST", "SHOULD", "MAY")
_Content = ElementTree.Element | str | None


def page(runs: Sequence[RunResult]) -> str:
    """Return the page for these runs, in their order."""
    rows, names = rows_of(runs), labels(runs)
    own = files("graphdriver_conformance.results")
    verdicts = ", ".join(
        f"{name}: {_VERDICTS[run.verdict].lower()}" for run, name in zip(runs, names, strict=True)
    )
    head = _made(
        "head",
        {},
        _made("meta", {"charset": "utf-8"}),
        _made("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        _made("title", {}, f"Conformance of {verdicts}"[:120]),
        _made("style", {}, own.joinpath("page.css").read_text("utf-8")),
    )
    body = _made(
        "body",
        {},
        _made("h1", {}, "Conformance of layered-storage drivers"),
        _made("p", {}, _summary(runs)),
        _made("main", {}, *_main(runs, rows, names)),
        _made("script", {}, own.joinpath("page.js").read_text("utf-8")),
    )
    html = _made("html", {"lang": "en"}, head, body)
    return "<!doctype html>\n" + ElementTree.tostring(html, encoding="unicode", method="html")


def _summary(runs: Sequence[RunResult]) -> str:
    parts = [
        f"{count} {_VERDICTS[verdict].lower()}"
        for verdict in Verdict
        if (count := sum(run.verdict is verdict for run in runs))
    ]
    return f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(parts)}."


def _main(
    runs: Sequence[RunResult], rows: Sequence[Row], names: Sequence[str]
) -> Iterable[ElementTree.Element]:
    yield _made("div", {"class": "runs"}, *map(_card, range(len(runs)), runs, names))
    yield _made("h2", {"id": "matrix"}, "Requirements")
    yield _legend(rows)
    yield _filters(rows)
    yield _matrix(rows, names)
    yield _made("h2", {}, "One by one")
    for row in rows:
        yield _section(row, runs, names)


def _card(number: int, run: RunResult, name: str) -> ElementTree.Element:
    """Return the verdict on one run: the word first, then the counts, then where."""
    counts = [
        (level, _counted(run, level))
        for level in _LEVELS
        if any(one.level == level for one in run.requirements.values())
    ]
    claimed = (
        "everything"
        if run.driver.capabilities is None
        else ", ".join(run.driver.capabilities) or "nothing"
    )
    where = f"kernel {run.where.kernel}, {run.where.filesystem}, {run.where.user}"
    more = [
        ("driver", f"{run.driver.name}, as {run.driver.spec}"),
        ("claims", claimed),
        ("run", f"{run.started}, {run.seconds:.1f} s, seed {run.run.seed}, suite {run.suite}"),
        ("machine", run.where.machine),
        *run.driver.status,
        *run.where.facts.items(),
    ]
    verdict = _made("span", {"class": f"badge {run.verdict.value}"}, _VERDICTS[run.verdict])
    return _made(
        "article",
        {"class": "run", "id": f"run-{number}"},
        _made("h3", {}, name),
        _made("p", {"class": "verdict"}, verdict),
        _table(counts),
        _made("p", {"class": "quiet"}, where),
        _made("details", {}, _made("summary", {}, "claims, status, kernel facts"), _table(more)),
    )


def _counted(run: RunResult, level: str) -> str:
    found = [(one, run.count(level, one)) for one in Outcome]
    shown = [f"{n} {one.value}" for one, n in found if n or one is Outcome.MET]
    return ", ".join(shown)


def _legend(rows: Sequence[Row]) -> ElementTree.Element:
    there = {one for row in rows for one in row.words}
    items = [
        _made("li", {}, _made("span", {"class": f"badge {name}"}, sign), f" {text}")
        for name, (sign, text) in _SIGNS.items()
        if name in there
    ]
    return _made("ul", {"class": "legend", "aria-label": "signs"}, *items)


def _filters(rows: Sequence[Row]) -> ElementTree.Element:
    """Return the filters, hidden until the script that serves them is there."""
    there = {one for row in rows for one in row.words}
    outcomes = [("", "all"), ("look", "needs a look"), ("differs", "differs between runs")]
    outcomes += [(name, text) for name, (_, text) in _SIGNS.items() if name in there]
    families = sorted({row.id.partition("-")[0] for row in rows})
    levels = [level for level in _LEVELS if any(row.level == level for row in rows)]
    text = {"type": "search", "name": "text", "placeholder": "whiteout, DIF-0, moby …"}
    return _made(
        "form",
        {"id": "filters", "class": "filters", "hidden": "hidden"},
        _made("label", {}, "search", _made("input", text)),
        _choice("outcome", "outcome", outcomes),
        _choice("level", "level", [("", "all"), *((one, one) for one in levels)]),
        _choice("family", "family", [("", "all"), *((one, one) for one in families)]),
        _made("output", {"id": "count", "aria-live": "polite"}, f"{len(rows)} requirements"),
    )


def _choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> ElementTree.Element:
    made = [_made("option", {"value": value}, text) for value, text in options]
    return _made("label", {}, label, _made("select", {"name": name}, *made))


def _matrix(rows: Sequence[Row], names: Sequence[str]) -> ElementTree.Element:
    tall = {"class": "tall"} if len(names) > 4 else {}
    heads = [
        _made(
            "th",
            {"scope": "col", **tall},
            _made("span", {}, _made("a", {"href": f"#run-{n}"}, one)),
        )
        for n, one in enumerate(names)
    ]
    head = _made(
        "tr",
        {},
        _made("th", {"scope": "col"}, "requirement"),
        _made("th", {"scope": "col", "class": "level"}, "level"),
        *heads,
    )
    table = _made(
        "table",
        {"class": "matrix"},
        _made("thead", {}, head),
        _made("tbody", {}, *(_matrix_row(row, names) for row in rows)),
    )
    return _made(
        "div",
        {"class": "scroll", "tabindex": "0", "role": "region", "aria-labelledby": "matrix"},
        table,
    )


def _matrix_row(row: Row, names: Sequence[str]) -> ElementTree.Element:
    data = {
        "data-id": row.id,
        "data-level": row.level,
        "data-family": row.id.partition("-")[0],
        "data-outcomes": " ".join(sorted(set(row.words))),
        "data-differs": "yes" if row.differs else "no",
        "data-look": "yes" if row.is_worth_a_look else "no",
        "data-text": f"{row.id} {row.title} {row.source}".lower(),
    }
    link = _made("a", {"class": "id", "href": f"#{row.id}"}, row.id)
    title = _made("span", {"class": "title"}, f" {row.title}")
    cells = [
        _made("td", {"class": one}, _sign(f"{row.id}.{n}", one, f"{row.id} on {name}"))
        for n, (one, name) in enumerate(zip(row.words, names, strict=True))
    ]
    level = _made("td", {"class": "level"}, row.level)
    return _made("tr", data, _made("th", {"scope": "row"}, link, title), level, *cells)


def _sign(target: str, outcome: str, what: str) -> ElementTree.Element:
    sign, text = _SIGNS[outcome]
    return _made("a", {"href": f"#{target}", "aria-label": f"{what}: {text}"}, sign)


def _section(row: Row, runs: Sequence[RunResult], names: Sequence[str]) -> ElementTree.Element:
    """Return what is known of one requirement, and one part for each run."""
    told = [f"why: {row.why}"] * bool(row.why) + [f"source: {row.source}"] * bool(row.source)
    parts = [_made("p", {"class": "quiet"}, text) for text in told]
    cells = [
        _cell(f"{row.id}.{n}", cell, runs[n], name)
        for n, (cell, name) in enumerate(zip(row.cells, names, strict=True))
    ]
    title = _made("h3", {}, f"{row.id} ({row.level})  {row.title}")
    return _made(
        "section",
        {"class": "requirement", "id": row.id, "data-id": row.id},
        title,
        *parts,
        *cells,
    )


def _cell(
    id: str, cell: RequirementResult | None, run: RunResult, name: str
) -> ElementTree.Element:
    outcome = word(cell)
    badge = _made("span", {"class": f"badge {outcome}"}, _SIGNS[outcome][1])
    proof = ""
    if cell and cell.examples:
        many = f", {cell.examples} examples" if cell.examples > 1 else ""
        proof = f"  {cell.seconds:.2f} s{many}"
    where = f"  kernel {run.where.kernel}, {run.where.filesystem}, {run.where.user}"
    parts: list[_Content] = [
        _made("h4", {}, f"{name} ", badge, _made("span", {"class": "quiet"}, proof + "," + where))
    ]
    if cell and (lines := list(finding(cell))):
        parts.append(_made("pre", {}, "\n".join(lines)))
    if cell and cell.reproduce and cell.outcome not in (Outcome.MET, Outcome.NOT_CLAIMED):
        parts.append(_made("p", {}, "again: ", _made("code", {}, cell.reproduce)))
    return _made("article", {"class": "cell", "id": id}, *parts)


def _table(rows: Iterable[tuple[str, str]]) -> ElementTree.Element:
    made = [
        _made("tr", {}, _made("th", {"scope": "row"}, name), _made("td", {}, value))
        for name, value in rows
    ]
    return _made("table", {}, _made("tbody", {}, *made))


def _made(tag: str, attributes: dict[str, str], *content: _Content) -> ElementTree.Element:
    """Return an element with text and elements in it."""
    element = ElementTree.Element(tag, attributes)
    last: ElementTree.Element | None = None
    for one in content:
        if isinstance(one, ElementTree.Element):
            element.append(one)
            last = one
        elif one and last is None:
            element.text = (element.text or "") + _printable(one)
        elif one and last is not None:
            last.tail = (last.tail or "") + _printable(one)
    return element


def _printable(text: str) -> str:
    """Return the text without what HTML cannot hold: control characters, halves of surrogates."""
    return "".join(
        one if one in "\n\t" or (one >= " " and not "\ud800" <= one <= "\udfff") else "�"
        for one in text
    )
