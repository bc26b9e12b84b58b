"""Requirements. They are data, in `catalogue/FAMILY.toml`; tests name them by id."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import pytest

__all__ = ["CATALOGUE_VERSION", "Level", "Requirement", "catalogue", "table", "verifies"]

CATALOGUE_VERSION = "0.1"
_Test = TypeVar("_Test", bound=Callable[..., object])


class Level(StrEnum):
    """The level of a requirement (RFC 2119)."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"

    def fails(self, lowest: str) -> bool:
        """Return whether a violation of this level fails a run at `--graphdriver-level=lowest`."""
        order = list(Level)
        return order.index(self) <= order.index(Level(lowest.upper()))


@dataclass(frozen=True, slots=True)
class Requirement:
    """A rule that can be false of a driver.

    `needs` are capabilities (if not claimed, the requirement does not apply) and features of the
    environment (if absent, it is not provable); `rests_on` are requirements that it depends on.
    """

    id: str
    level: Level
    title: str
    why: str
    source: str
    since: str
    needs: tuple[str, ...] = ()
    rests_on: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The three letters before the number."""
        return self.id.partition("-")[0]


@cache
def catalogue() -> dict[str, Requirement]:
    """Return every requirement by id, in the order of the files. Raises ValueError."""
    found: dict[str, Requirement] = {}
    for path in sorted(
        files("graphdriver_conformance.catalogue").iterdir(), key=lambda one: one.name
    ):
        if not re.fullmatch(r"[A-Z]{3}\.toml", path.name):
            continue
        for entry in tomllib.loads(path.read_text())["requirement"]:
            requirement = _parse(path.name, entry)
            if requirement.id in found:
                raise ValueError(f"{path.name}: {requirement.id} occurs twice")
            found[requirement.id] = requirement
    if reused := found.keys() & {one["id"] for one in table("retired.toml")["retired"]}:
        raise ValueError(f"{', '.join(sorted(reused))}: retired ids are never reused")
    for requirement in found.values():
        for other in requirement.rests_on:
            if other not in found:
                raise ValueError(f"{requirement.id} rests on {other}, which does not exist")
    return found


def table(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of the catalogue."""
    return tomllib.loads((files("graphdriver_conformance.catalogue") / name).read_text("utf-8"))


def verifies(id: str) -> Callable[[_Test], _Test]:
    """Mark a test with the one requirement it verifies."""
    marked: Callable[[_Test], _Test] = pytest.mark.graphdriver_verifies(id)
    return marked


def _parse(name: str, entry: dict[str, Any]) -> Requirement:
    known = {"id", "level", "title", "why", "source", "since", "needs", "rests_on"}
    missing = {"id", "level", "title", "why", "source"} - entry.keys()
    if missing or entry.keys() - known:
        raise ValueError(
            f"{name}: {entry.get('id')}: missing {missing}, unknown {entry.keys() - known}"
        )
    return Requirement(
        entry["id"],
        Level(entry["level"]),
        entry["title"],
        entry["why"],
        entry["source"],
        entry.get("since", CATALOGUE_VERSION),
        tuple(entry.get("needs", ())),
        tuple(entry.get("rests_on", ())),
    )
