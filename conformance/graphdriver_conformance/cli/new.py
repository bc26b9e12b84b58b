"""Create a skeleton of a driver with tests. It implements nothing yet, but it runs."""

import argparse
import importlib.metadata
import importlib.util
import json
import keyword
import string
import sys
from importlib.resources import files
from pathlib import Path

__all__ = ["add_arguments", "run"]

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "driver.py": "{name}/driver.py",
    "init.py": "{name}/__init__.py",
    "test_own.py": "tests/test_own.py",
    "conformance.yml": ".github/workflows/conformance.yml",
}
_NOWHERE = "git+https://<where this repository is hosted>"
_WORKFLOW = ".github/workflows/conformance.yml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("name", help="name of the package and of its directory")


def run(options: argparse.Namespace) -> int:
    """Write the skeleton below the current directory; 4 if the name cannot be used."""
    name = options.name
    if reason := _unusable(name):
        return _refuse(reason)
    root, origin = Path(name), _origin()
    skeleton = files("graphdriver_conformance.cli").joinpath("skeleton")
    try:
        for source, target in _FILES.items():
            path = root / target.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = skeleton.joinpath(f"{source}.txt").read_text("utf-8")
            path.write_text(string.Template(text).substitute(name=name, suite=origin), "utf-8")
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    print(f"Implement the driver in {name}/{name}/driver.py, then run:\n")
    print(f"  cd {name} && pytest --requirement=LIF-001")
    if origin == _NOWHERE:
        print(f"\nSet the source of the suite in {name}/{_WORKFLOW}.")
    return 0


def _unusable(name: str) -> str:
    """Return the reason why a package cannot have this name, "" if it can."""
    if not name.isidentifier() or keyword.iskeyword(name):
        return f"{name!r} is not a valid package name; use letters, digits and _"
    if name in sys.stdlib_module_names:
        return f"{name} would shadow the standard library's module {name}; choose another name"
    if Path(name).exists():
        return f"{name} exists already; choose another name, or remove it"
    if name == "tests" or importlib.util.find_spec(name):
        return f"{name} is the name of another package here; choose another name"
    return ""


def _origin() -> str:
    """Return the repository from which this suite was installed, as pip takes it (PEP 610)."""
    text = importlib.metadata.distribution("graphdriver-conformance").read_text("direct_url.json")
    origin = json.loads(text or "{}")
    if origin.get("vcs_info", {}).get("vcs") != "git" or origin["url"].startswith("file:"):
        return _NOWHERE
    return f"git+{origin['url']}@{origin['vcs_info']['commit_id']}"


def _refuse(reason: str) -> int:
    print(f"graphdriver new: {reason}", file=sys.stderr)
    return 4
