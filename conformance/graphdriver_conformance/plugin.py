"""The pytest plugin: its options, and `--driver=SPEC`.

Every pytest run of the environment imports this module, so it imports only pytest; modules for a
run of the suite are loaded when a driver is named. Every registered option and marker begins with
`graphdriver`. `--driver`, `--requirement` and `--shard` are spellings, which are never registered,
because pytest-selenium and many conftests own them: they are rewritten unless another plugin owns
them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
from collections.abc import Generator, Iterator, Sequence
from enum import Enum, auto
from typing import Any, NoReturn

import pytest

__all__ = ["OPTIONS", "SPELLINGS"]

SUITE = "graphdriver_conformance.suite"
DEADLINE_VARIABLE = "GRAPHDRIVER_DEADLINE"
_DEADLINE = 60.0
SPELLINGS = {
    "--driver": "--graphdriver",
    "--requirement": "--graphdriver-requirement",
    "--shard": "--graphdriver-shard",
}


def seconds(text: str) -> float:
    """Return a positive number of seconds. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def shard(text: str) -> str:
    """Return a share of the requirements, I/N. Raises argparse.ArgumentTypeError."""
    # imported here, because every run of pytest loads this module
    from graphdriver_conformance.shard import Shard

    try:
        return str(Shard.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


OPTIONS: dict[str, dict[str, Any]] = {
    "--graphdriver": {
        "action": "append",
        "default": [],
        "metavar": "SPEC",
        "help": "driver to judge: a name, module:attribute, or a kind of driver and its address, "
        "as plugin+exec:COMMAND; repeatable (also: --driver)",
    },
    "--graphdriver-requirement": {
        "action": "append",
        "default": [],
        "type": str.upper,
        "metavar": "ID",
        "help": "only this requirement, or those of this prefix; repeatable (also: --requirement)",
    },
    "--graphdriver-shard": {
        "type": shard,
        "metavar": "I/N",
        "help": "only the Ith of N shares of the requirements; `graphdriver report` joins the "
        "result files (also: --shard)",
    },
    "--graphdriver-profile": {
        "choices": ("quick", "default", "thorough"),
        "default": "default",
        "help": "how many examples property tests draw",
    },
    "--graphdriver-level": {
        "choices": ("must", "should", "may"),
        "default": "must",
        "help": "lowest level whose violation fails the run (default: must)",
    },
    "--graphdriver-home": {"metavar": "DIR", "help": "directory for the homes of the drivers"},
    "--graphdriver-option": {
        "action": "append",
        "default": [],
        "metavar": "K=V",
        "help": "option for the driver; repeatable",
    },
    "--graphdriver-deadline": {
        "type": seconds,
        "metavar": "SECONDS",
        "help": "how long a verb of the driver may take (default: $GRAPHDRIVER_DEADLINE, or 60)",
    },
    "--graphdriver-report": {"metavar": "FILE.json", "help": "write the result file"},
    "--graphdriver-html": {"metavar": "FILE.html", "help": "write the result as a page"},
    "--graphdriver-journal": {
        "metavar": "FILE",
        "help": "write the result of each test as it comes, one line of JSON each",
    },
    "--graphdriver-repro": {
        "metavar": "DIR",
        "help": "write a script for each violation that reproduces it without pytest",
    },
    "--graphdriver-keep": {"metavar": "DIR", "help": "keep the home of each violation there"},
    "--graphdriver-waivers": {
        "metavar": "FILE.toml",
        "help": "known violations, each with reason, issue and last day",
    },
    "--graphdriver-baseline": {
        "metavar": "OLD.json",
        "help": "a result file: only violations that it does not have fail the run",
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
}
"""The options to register with pytest, by name: the arguments of `addoption`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options; rewrite `--driver=SPEC` before other plugins can refuse it."""
    _rewrite_before_parsing(parser)
    group = parser.getgroup("graphdriver", "conformance of layered-storage drivers")
    for name, arguments in OPTIONS.items():
        group.addoption(name, **arguments)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, None, None]:
    """Rewrite the spellings once the conftests are loaded, and add the suite if no path is given.

    The conftests may own `--driver`, `--requirement` or `--shard`, which is known only then.
    """
    yield
    _rewrite(parser, args, "--driver")
    named = parser.parse_known_args(args)
    if not named.graphdriver:
        return
    _rewrite(parser, args, "--requirement")
    _rewrite(parser, args, "--shard")
    known = parser.parse_known_args(args)
    more = [f"--hypothesis-seed={known.graphdriver_seed}"]
    if known.graphdriver_deadline is None:
        more.append(f"--graphdriver-deadline={_default_deadline()}")
    if not any(os.path.exists(path.split("::")[0]) for path in known.file_or_dir):
        more += ["--pyargs", SUITE]
    end = args.index("--") if "--" in args else len(args)
    args[end:end] = more


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; load the other modules if a driver is named."""
    config.addinivalue_line(
        "markers", "graphdriver_verifies(id): the requirement that this test verifies"
    )
    if config.getoption("graphdriver"):
        from graphdriver_conformance import session

        session.activate(config)


@pytest.fixture
def graphdriver() -> NoReturn:
    """The driver under test; a run that names one with --driver=SPEC replaces this fixture."""
    pytest.fail("no driver to test: name one with --driver=SPEC", pytrace=False)


def driver_names() -> list[str]:
    """Return the names in the entry-point group graphdriver.drivers."""
    return sorted(importlib.metadata.entry_points(group="graphdriver.drivers").names)


def _default_deadline() -> float:
    text = os.environ.get(DEADLINE_VARIABLE)
    try:
        return seconds(text) if text else _DEADLINE
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"${DEADLINE_VARIABLE}: {error}") from None


def _rewrite_before_parsing(parser: pytest.Parser) -> None:
    """Rewrite `--driver=SPEC` before the parser reads it, if a plugin owns `--driver`.

    pytest parses the command line once after the plugins are loaded, and before any of their hooks
    gets the arguments. pytest-selenium's `--driver` has the names of browsers as choices and would
    end the run there. A hook is called too late, so the parser's own method is replaced.
    """
    parse_known_args = parser.parse_known_args

    def rewriting(args: Sequence[str | os.PathLike[str]], *rest: Any, **named: Any) -> Any:
        if isinstance(args, list):
            _rewrite(parser, args, "--driver", only_refused=True)
        return parse_known_args(args, *rest, **named)

    parser.parse_known_args = rewriting  # type: ignore[method-assign]


def _rewrite(
    parser: pytest.Parser, args: list[str], spelling: str, *, only_refused: bool = False
) -> None:
    """Rewrite a spelling to the real name if it is not registered, or its owner refuses a driver.

    With `only_refused` an unregistered one stays: a conftest that owns it may still be loaded.
    Raises pytest.UsageError for a driver that does not exist.
    """
    for position, count, value in reversed(list(_occurrences(args, spelling))):
        owner = _owner(parser, args, spelling, value)
        if owner is _Owner.TAKES_IT or (only_refused and owner is _Owner.NONE):
            continue
        is_driver = spelling == "--driver" and (":" in value or value in driver_names())
        if is_driver or (owner is _Owner.NONE and spelling != "--driver"):
            args[position : position + count] = [f"{SPELLINGS[spelling]}={value}"]
        elif owner is _Owner.NONE:
            raise pytest.UsageError(_no_such_driver(value))


class _Owner(Enum):
    """Another plugin or conftest that registered an option, and a value of that option."""

    NONE = auto()
    TAKES_IT = auto()
    REFUSES_IT = auto()


def _owner(parser: pytest.Parser, args: list[str], option: str, value: str) -> _Owner:
    """Determine by parsing whether the option is registered, and whether it accepts the value.

    argparse treats an unknown option with a blank in its value as a path, so it is tested without.
    """
    value = "".join(value.split())
    given = {
        place
        for position, count, _ in _occurrences(args, option)
        for place in range(position, position + count)
    }
    others = [arg for place, arg in enumerate(args) if place not in given]
    try:
        parser.parse_known_and_unknown_args(others)
    except pytest.UsageError:
        return _Owner.TAKES_IT  # the arguments have another error, which pytest will report
    try:
        _, unknown = parser.parse_known_and_unknown_args([f"{option}={value}", *others])
    except pytest.UsageError:
        return _Owner.REFUSES_IT
    return _Owner.NONE if f"{option}={value}" in unknown else _Owner.TAKES_IT


def _occurrences(args: Sequence[str], option: str) -> Iterator[tuple[int, int, str]]:
    """Yield the position of an option in `args`, its number of arguments, and its value."""
    for position, arg in enumerate(args):
        if arg == "--":
            return
        if arg.startswith(f"{option}="):
            yield position, 1, arg.partition("=")[2]
        elif arg == option and position + 1 < len(args):
            yield position, 2, args[position + 1]


def _no_such_driver(name: str) -> str:
    import difflib  # imported here, because every run of pytest loads this module

    names = driver_names()
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]}? There are" if close else "there are"
    return f"--driver={name}: no such driver; {meant} {', '.join(names)}; or module:attribute"
