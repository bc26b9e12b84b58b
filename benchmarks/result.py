"""The result of a run as a JSON file with every time, the only input of the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import Aim, Row
from benchmarks.machine import Evenness

__all__ = ["Axis", "Result", "read", "write"]


@dataclass(frozen=True, slots=True)
class Axis:
    """Cost by size: for each line of the chart the median seconds at each of `points`."""

    title: str
    unit: str
    points: tuple[int, ...]
    lines: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `setup` names versions; `memory` is MiB above an idle interpreter, by verb."""

    setup: Mapping[str, str]
    rounds: int
    evenness: Evenness
    rows: Sequence[Row]
    axes: Sequence[Axis]
    memory: Mapping[str, float]


def write(result: Result, path: Path) -> None:
    """Write the file, with times in whole microseconds."""
    path.write_text(json.dumps(_rounded(asdict(result)), indent=1) + "\n")


def read(path: Path) -> Result:
    """Read the file."""
    data = json.loads(path.read_text())
    return Result(
        data["setup"],
        data["rounds"],
        Evenness(**data["evenness"]),
        tuple(_row(row) for row in data["rows"]),
        tuple(_axis(axis) for axis in data["axes"]),
        data["memory"],
    )


def _row(data: dict[str, Any]) -> Row:
    seconds = {name: tuple(times) for name, times in data["seconds"].items()}
    return Row(data["title"], seconds, tuple(Aim(**aim) for aim in data["aims"]), data["reason"])


def _axis(data: dict[str, Any]) -> Axis:
    lines = {name: tuple(times) for name, times in data["lines"].items()}
    return Axis(data["title"], data["unit"], tuple(data["points"]), lines)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
