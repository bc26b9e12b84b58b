"""docs/real-drivers.md: who breaks what, and what that is."""

from collections.abc import Iterator, Mapping
from typing import Any

from graphdriver_conformance.catalogue.requirement import catalogue

from .expectations import Known, known_of
from .targets import TARGETS

__all__ = ["document"]

_INTRODUCTION = """# Other people's drivers

Made by `python -m tests.real`, which starts what has to run. A violation is a *bug* of that driver,
or a *difference*: documented, or a decision that can be defended. What is known of each is stored
in `tests/real/expectations/` by requirement id, and CI compares. How each is reached:
[stores.md](stores.md), [plugins.md](plugins.md). Our own driver stands first, for comparison.
"""


def document(record: Mapping[str, Any]) -> str:
    """Return the page."""
    found = record["targets"]
    targets = {name: found[name] for name in TARGETS if name in found}
    parts = [_INTRODUCTION, *_summary(targets), *_matrix(targets)]
    for name, target in targets.items():
        parts += _violations(name, target)
    return "\n".join(parts).rstrip() + "\n"


def _summary(targets: Mapping[str, Any]) -> Iterator[str]:
    heads = ["driver", "version", "met", "bugs", "differences", "not claimed", "not provable"]
    yield f"| {' | '.join([*heads, 'time', 'a call'])} |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, target in targets.items():
        counts, broken = target["counts"], _broken(name, target)
        bugs = sum(1 for known in broken.values() if known is None or known.kind == "bug")
        row = [target["title"], target["version"], counts["met"], bugs, len(broken) - bugs]
        row += [counts["not-claimed"], counts["not-provable"]]
        row += [f"{target['seconds']} s", f"{target['call_ms']} ms"]
        yield f"| {' | '.join(map(str, row))} |"
    one = next(iter(targets.values()))
    yield ""
    yield f"Kernel {one['kernel']}, profile {one['profile']}, two processes."
    yield "A call is `exists` of a layer that is not there."
    yield ""


def _matrix(targets: Mapping[str, Any]) -> Iterator[str]:
    broken = {name: _broken(name, target) for name, target in targets.items()}
    yield "## Who breaks what"
    yield ""
    yield "B a bug, D a difference, + met, - not claimed, ? not provable here."
    yield ""
    yield f"| requirement | level | {' | '.join(target['title'] for target in targets.values())} |"
    yield f"|---|---|{'---|' * len(targets)}"
    for id, requirement in catalogue().items():
        if not any(id in rows for rows in broken.values()):
            continue
        cells = [_cell(id, broken[name], target) for name, target in targets.items()]
        yield f"| {id} {requirement.title} | {requirement.level} | {' | '.join(cells)} |"
    yield ""


def _cell(id: str, broken: Mapping[str, Known | None], target: Mapping[str, Any]) -> str:
    if id in broken:
        known = broken[id]
        return "D" if known and known.kind == "difference" else "B"
    marks = {"met": "+", "not-claimed": "-", "not-provable": "?"}
    return marks.get(target["outcomes"].get(id, ""), " ")


def _violations(name: str, target: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {target['title']}"
    yield ""
    words = [f"'{word}'" for word in (target["spec"], *target["options"])]
    yield f"`graphdriver check {' '.join(words)}`, {target['version']}."
    yield ""
    broken = _broken(name, target)
    if not broken:
        yield "Nothing is violated."
    for id, known in broken.items():
        upstream = f" ({known.upstream})" if known and known.upstream else ""
        what = f"{known.kind}. {known.note}{upstream}" if known else "not read yet."
        yield f"* **{id}** {catalogue()[id].title}: {what}"
    yield ""


def _broken(name: str, target: Mapping[str, Any]) -> dict[str, Known | None]:
    known = known_of(name)
    return {
        id: known.get(id)
        for id, outcome in target["outcomes"].items()
        if outcome in ("violated", "blocked")
    }
