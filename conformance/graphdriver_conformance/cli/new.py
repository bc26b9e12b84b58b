"""`graphdriver new`: a skeleton of a driver with its tests, conformant in nothing, but it runs."""

import argparse
import keyword
import string
import sys
from importlib.resources import files
from pathlib import Path

__all__ = ["run"]

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "driver.py": "{name}/driver.py",
    "init.py": "{name}/__init__.py",
    "test_own.py": "tests/test_own.py",
    "conformance.yml": ".github/workflows/conformance.yml",
}


def run(arguments: list[str]) -> int:
    """Write the skeleton below the current directory; 4 when the name cannot be had."""
    parser = argparse.ArgumentParser("graphdriver new", description=__doc__)
    parser.add_argument("name", help="of the package, and of the directory it goes to")
    name = parser.parse_args(arguments).name
    if not name.isidentifier() or keyword.iskeyword(name):
        return _refuse(f"{name!r} is no name for a package; use letters, digits and _")
    root = Path(name)
    if root.exists():
        return _refuse(f"{name} is there already; choose another name, or remove it")
    skeleton = files("graphdriver_conformance.cli").joinpath("skeleton")
    try:
        for source, target in _FILES.items():
            path = root / target.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = skeleton.joinpath(f"{source}.txt").read_text("utf-8")
            path.write_text(string.Template(text).substitute(name=name), "utf-8")
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    print(f"{name}/{name}/driver.py has the verbs; now:\n")
    print(f"  cd {name} && pytest --driver={name}.driver:Driver --requirement=LIF-001")
    return 0


def _refuse(what: str) -> int:
    print(f"graphdriver new: {what}", file=sys.stderr)
    return 4
