"""Pages of the documentation site that are generated from the catalogue."""

from collections.abc import Callable, Iterator
from pathlib import Path

from graphdriver.contract import Capability
from graphdriver_conformance.catalogue.requirement import Requirement, catalogue
from graphdriver_conformance.cli.explain import broken_drivers, links_of, verifiers_of

__all__ = ["SECTIONS", "families", "family_page", "index_page", "requirement_page"]

SECTIONS = {
    "ARC": "Fidelity of archives",
    "CHG": "changes",
    "CLN": "Cleanup",
    "CON": "Concurrency",
    "CRS": "Crashes",
    "DIF": "diff and apply_diff",
    "ERR": "Classes of errors",
    "FSX": "File-system semantics",
    "IDM": "Id maps",
    "INI": "Init",
    "KRN": "Kernels",
    "LAY": "Layout on disk",
    "LIF": "Layer lifecycle",
    "LIM": "Depth limit",
    "LNK": "Short links",
    "MET": "Metadata and status",
    "MNT": "Mounts",
    "QUO": "Quota",
    "SEC": "Security",
    "SIZ": "Sizes",
    "WHT": "Whiteouts",
    "WIR": "Plugin protocol",
}
"""The headings of the families; one that is missing here has its three letters for a heading."""

_Link = Callable[[str], str]


def families() -> dict[str, list[Requirement]]:
    """Return the requirements of each family, in the order of their ids."""
    found: dict[str, list[Requirement]] = {}
    for one in sorted(catalogue().values(), key=lambda one: one.id):
        found.setdefault(one.family, []).append(one)
    return found


def index_page() -> str:
    """Return the page that lists the families."""
    rows = "".join(
        f"| [{family}]({family}.md) | {SECTIONS.get(family, family)} | {len(some)} |\n"
        for family, some in families().items()
    )
    return (
        "# Requirements\n\nEach requirement has an id, a level (MUST, SHOULD or MAY), a rule that"
        " can be false of a driver, and the loss to users when it is. An id is never reused.\n\n"
        f"| family | subject | requirements |\n|---|---|--:|\n{rows}"
    )


def family_page(family: str) -> str:
    """Return the page that lists the requirements of a family."""
    rows = "".join(
        f"| [{one.id}]({one.id}.md) | {one.level} | {one.title} |\n" for one in families()[family]
    )
    heading = f"# {family}: {SECTIONS.get(family, family)}"
    return f"{heading}\n\n| id | level | requirement |\n|---|---|---|\n{rows}"


def requirement_page(one: Requirement) -> str:
    """Return the page of a requirement: rule, reason, source, tests, and broken drivers."""
    return "\n".join(_parts(one)) + "\n"


def _parts(one: Requirement) -> Iterator[str]:
    yield f"# {one.id}: {one.title}\n\n**{one.level}.** {one.why}\n"
    links = ", ".join(f"[{_last(link)}]({link})" for link in links_of(one.source))
    yield f"**Source**\n:   {one.source}{f' ({links})' if links else ''}\n"
    yield f"**Since catalogue version**\n:   {one.since}\n"
    if one.needs:
        yield f"**Needs**\n:   {', '.join(map(_need, one.needs))}\n"
    if one.rests_on:
        yield f"**Depends on**\n:   {_list(one.rests_on)}\n"
    if under := [other.id for other in catalogue().values() if one.id in other.rests_on]:
        yield f"**Required by**\n:   {_list(under)}\n"
    yield "\n## Run it\n\n```\npytest --driver=SPEC --requirement=" + one.id + "\n```\n"
    yield "## Tests\n"
    for test, text in verifiers_of(one.id):
        path, _, name = test.partition("::")
        yield f"* `{name}` in `{Path(path).name}`: {text.partition(chr(10))[0]}"
    if drivers := broken_drivers().get(one.id, []):
        yield "\n## Broken drivers that it detects\n"
        yield "| driver | bug | found in |\n|---|---|---|"
        for driver in drivers:
            yield f"| `{driver['name']}` | {_cell(driver['does'])} | {_cell(driver['bug'])} |"


def _need(name: str) -> str:
    if name in {one.value for one in Capability}:
        return f"capability [`{name}`](../capabilities.md)"
    return f"`{name}` of the machine"


def _list(ids: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"[{id}]({id}.md)" for id in ids)


def _last(link: str) -> str:
    return link.rstrip("/").rpartition("/")[2]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
