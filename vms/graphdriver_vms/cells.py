"""The cells: what each machine runs, as `cells.toml` has them."""

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
    """One run of the suite in a machine; the keys are explained in `cells.toml`."""

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
    """Return what a guest is told to run, as JSON can have it.

    `families` are those of the catalogue at hand: a cell asks for none that is not there. Where
    Init must refuse (`init` names an error), every cell but those that expect another error does.
    """
    chosen = []
    for cell in cells:
        wanted = [one for one in cell.requirements if one.partition("-")[0] in families]
        expect = cell.expect if init == "works" or cell.driver == "vfs" else init
        row = asdict(cell) | {"requirements": wanted, "expect": expect}
        chosen.append(row | {"driver": cell.driver or driver})
    return {"profile": profile, "cells": chosen}
