"""The cells of each machine, as defined in `cells.toml`."""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from graphdriver_vms.kernels import data_file

__all__ = ["CONFORMANT", "VIOLATED", "Cell", "load_cells", "plan"]

CONFORMANT = "conformant"
VIOLATED = "violated"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the suite in a machine; `cells.toml` explains the keys."""

    name: str
    about: str
    driver: str = ""
    make: list[str] = field(default_factory=list)
    make_older: list[str] = field(default_factory=list)
    mount: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    personality: str = ""
    requirements: list[str] = field(default_factory=list)
    expect: str = CONFORMANT
    requires: str = ""


def load_cells(path: Path | None = None) -> dict[str, Cell]:
    """Return the cells by name, in the order of the file. Raises ValueError, TypeError."""
    path = path or data_file("cells.toml")
    found: dict[str, Cell] = {}
    for entry in tomllib.loads(path.read_text())["cell"]:
        cell = Cell(**entry)
        if cell.name in found:
            raise ValueError(f"{path}: {cell.name} is there twice")
        found[cell.name] = cell
    return found


def plan(
    cells: Sequence[Cell], driver: str, families: frozenset[str], profile: str, init: str
) -> dict[str, Any]:
    """Return the cell for a guest, as JSON data.

    `families` are those of the installed catalogue: a cell requests no others. If Init must refuse
    (`init` names an error), this applies to every cell except those that expect another error.
    """
    chosen = []
    for cell in cells:
        wanted = [one for one in cell.requirements if one.partition("-")[0] in families]
        expect = cell.expect if init == "works" or cell.driver == "vfs" else init
        row = asdict(cell) | {"requirements": wanted, "expect": expect}
        chosen.append(
            row | {"driver": cell.driver or driver, "takes_overlay": cell.driver != "vfs"}
        )
    return {"profile": profile, "cells": chosen}
