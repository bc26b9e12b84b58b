"""The report on the terminal: a table, and open questions."""

from collections.abc import Iterator, Sequence

from graphdriver_vms.results.judge import Row, State

__all__ = ["lines"]

_SHORT = {
    State.MET: "met",
    State.REFUSED: "refused",
    State.NOT_PROVABLE: "unprovable",
    State.NOT_RUN: "not run",
    State.DIFFERENT: "DIFFERENT",
}


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield cells x kernels, the details of unexpected cells, and a summary line."""
    ran = [row for row in rows if row.cells]
    names = list(dict.fromkeys(cell.name for row in ran for cell in row.cells))
    width = max(map(len, names), default=4)
    if ran:
        yield " " * width + "".join(f"  {row.name:>10}" for row in ran)
    for name in names:
        words = []
        for row in ran:
            found = next((cell for cell in row.cells if cell.name == name), None)
            words.append(_SHORT[found.state] if found else "-")
        yield f"{name:<{width}}" + "".join(f"  {word:>10}" for word in words)
    yield ""
    yield from _details(ran)
    yield from _violations(ran)
    for row in rows:
        if row.problem:
            yield f"{row.name}: {'FAILED' if row.failed else 'not run'}: {row.problem}"
    yield _verdict(rows, ran)


def _details(ran: Sequence[Row]) -> Iterator[str]:
    names: dict[tuple[State, str, str], list[str]] = {}
    for row in ran:
        for cell in row.cells:
            if cell.state is not State.MET:
                names.setdefault((cell.state, cell.name, cell.detail), []).append(row.name)
    for (state, name, detail), kernels in sorted(names.items(), key=lambda one: one[0][0]):
        yield f"{_SHORT[state]}: {name} on {', '.join(kernels)}: {detail}"


def _violations(ran: Sequence[Row]) -> Iterator[str]:
    """List the violations in cells that are as expected: SHOULDs."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in ran:
        for cell in row.cells:
            if cell.state is State.MET:
                for id in (one for one, what in cell.outcomes().items() if what == "violated"):
                    names.setdefault((cell.name, id), []).append(row.name)
    for (name, id), kernels in names.items():
        yield f"violated, no MUST: {id}, {name} on {', '.join(kernels)}"


def _verdict(rows: Sequence[Row], ran: Sequence[Row]) -> str:
    different = [row.name for row in ran if row.is_different]
    failed = [row.name for row in rows if row.failed]
    idle = [row.name for row in rows if row.problem and not row.failed]
    text = f"{len(ran)} kernels ran"
    text += f", different: {', '.join(different)}" if different else ", all as expected" * bool(ran)
    text += f"; failed: {', '.join(failed)}" * bool(failed)
    return text + f"; not run: {', '.join(idle)}" * bool(idle)
