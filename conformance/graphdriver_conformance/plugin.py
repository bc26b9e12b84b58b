"""The pytest plugin's thin door: options, and `--driver=SPEC`.

Every pytest run of the environment imports this module, so it imports nothing but pytest; what a
run of the suite needs is loaded when one is asked for. `--driver` is never registered, because
pytest-selenium and many conftests own it: it is rewritten to `--graphdriver` when its value is a
driver.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

import pytest

__all__: list[str] = []

SUITE = "graphdriver_conformance.suite"

_OPTIONS: dict[str, dict[str, Any]] = {
    "--graphdriver": {
        "action": "append",
        "default": [],
        "metavar": "SPEC",
        "help": "driver to judge: a name, or module:attribute (also: --driver)",
    },
    "--graphdriver-home": {"metavar": "DIR", "help": "directory for the drivers' homes"},
    "--graphdriver-option": {
        "action": "append",
        "default": [],
        "metavar": "K=V",
        "help": "option for the driver; repeatable",
    },
    "--graphdriver-report": {"metavar": "FILE.json", "help": "write the result file"},
    "--graphdriver-html": {"metavar": "FILE.html", "help": "write the result as a page"},
    "--graphdriver-waivers": {
        "metavar": "FILE.toml",
        "help": "violations that are known, for a time",
    },
    "--graphdriver-baseline": {
        "metavar": "OLD.json",
        "help": "a result file: only violations that it does not have fail the run",
    },
    "--graphdriver-repro": {
        "metavar": "DIR",
        "help": "write a script for each violation that reproduces it without pytest",
    },
    "--graphdriver-profile": {
        "choices": ("quick", "default", "thorough"),
        "default": "default",
        "help": "how many examples property tests draw",
    },
    "--graphdriver-level": {
        "choices": ("must", "should", "may"),
        "default": "must",
        "help": "lowest level whose violation fails the run",
    },
    "--graphdriver-strict": {
        "action": "store_true",
        "help": "what cannot be proven here fails the run",
    },
    "--graphdriver-seed": {
        "type": int,
        "default": 0,
        "metavar": "N",
        "help": "seed of the property tests; same seed, same run",
    },
    "--graphdriver-deadline": {
        "type": float,
        "metavar": "SECONDS",
        "help": "how long a verb may take (default: $GRAPHDRIVER_DEADLINE, or 60)",
    },
    "--graphdriver-keep": {
        "metavar": "DIR",
        "help": "keep the home of each violation there",
    },
    "--graphdriver-journal": {
        "metavar": "FILE",
        "help": "write each result as it comes, as JSON lines",
    },
    "--requirement": {
        "action": "append",
        "default": [],
        "metavar": "ID",
        "help": "only this requirement, or those of this prefix; repeatable",
    },
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options, and see to it that `--driver=SPEC` is rewritten before it is parsed."""
    _rewrite_before_parsing(parser)
    group = parser.getgroup("graphdriver", "conformance of layered-storage drivers")
    for name, what in _OPTIONS.items():
        group.addoption(name, **what)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Turn `--driver=SPEC` into `--graphdriver=SPEC` and add the suite when no path was given."""
    if not any(arg.startswith(("--driver", "--graphdriver")) for arg in args):
        return
    _rewrite(args)
    known = parser.parse_known_args(args)
    if not known.graphdriver:
        return
    args.append(f"--hypothesis-seed={known.graphdriver_seed}")
    if not any(os.path.exists(path.split("::")[0]) for path in known.file_or_dir):
        args += ["--pyargs", SUITE]


@pytest.hookimpl(trylast=True, specname="pytest_load_initial_conftests")
def pytest_graphdriver_refuse_unknown(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Say which drivers there are when `--driver` is nobody's, instead of "unrecognized"."""
    values = [value for _, _, value in _driver_arguments(args)]
    if values and not _is_owned(parser):
        import difflib  # here, as every run of pytest loads this module

        names = driver_names()
        close = difflib.get_close_matches(values[0], names, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise pytest.UsageError(
            f"--driver={values[0]}: no such driver{meant} There are {', '.join(names)}; "
            "or name one as module:attribute."
        )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; load the rest if there is a driver to judge."""
    config.addinivalue_line("markers", "verifies(id): the requirement that this test verifies")
    if config.getoption("graphdriver"):
        from graphdriver_conformance import session

        session.activate(config)


def driver_names() -> list[str]:
    """Return the names in the entry-point group graphdriver.drivers."""
    return sorted(importlib.metadata.entry_points(group="graphdriver.drivers").names)


def _driver_arguments(args: list[str]) -> list[tuple[int, int, str]]:
    """Return where `--driver` stands in `args`, how many of them it takes, and its value."""
    found = []
    for position, arg in enumerate(args):
        if arg.startswith("--driver="):
            found.append((position, 1, arg.partition("=")[2]))
        elif arg == "--driver" and position + 1 < len(args):
            found.append((position, 2, args[position + 1]))
    return found


def _rewrite_before_parsing(parser: pytest.Parser) -> None:
    """Rewrite whatever list of arguments the parser is given, before it looks at it.

    pytest parses the command line once before any hook sees it; pytest-selenium's `--driver` has
    choices, and would refuse ours there.
    """
    parse_known_args = parser.parse_known_args

    def rewriting(args: Sequence[str | os.PathLike[str]], *rest: Any, **named: Any) -> Any:
        if isinstance(args, list):
            _rewrite(args)
        return parse_known_args(args, *rest, **named)

    parser.parse_known_args = rewriting  # type: ignore[method-assign]


def _rewrite(args: list[str]) -> None:
    for position, count, value in reversed(_driver_arguments(args)):
        if ":" in value or value in driver_names():
            args[position : position + count] = [f"--graphdriver={value}"]


def _is_owned(parser: pytest.Parser) -> bool:
    known, _ = parser.parse_known_and_unknown_args(["--driver=firefox"])
    return getattr(known, "driver", None) is not None
