"""The command `graphdriver`.

Each subcommand is a module that is imported when it is called: `add_arguments(parser)` adds its
arguments, `run(options)` returns the exit code. `check` passes its arguments to pytest. Commands of
the other packages are run as programs, because this package does not import them.
"""

import argparse
import difflib
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["COMMANDS", "PASSED_ON", "command_parser", "main"]

COMMANDS = {
    "check": "run the suite on drivers (default: overlay2)",
    "list": "list requirements or capabilities",
    "explain": "explain a requirement or a family: rule, reason, source, tests",
    "report": "show result files as text, HTML or Markdown, or compare two",
    "waive": "write waivers for the violations of a result file",
    "doctor": "list the requirements that this machine can test, and what to install",
    "new": "create a skeleton of a driver, with tests",
    "completion": "print a script for completion in bash",
}
PASSED_ON = {
    "fsck": ("check an overlay2 home without changing it", "graphdriver.overlay2.fsck"),
    "serve": ("serve a driver as a Docker graphdriver plugin", "graphdriver.plugin"),
    "matrix": ("run the suite on many kernels, in virtual machines", "graphdriver_vms"),
}
_CANNOT_WRITE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 when there is no such command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, *rest = given or [""]
    if name in PASSED_ON:
        # exec keeps the process id, so that a signal to `graphdriver serve` reaches the plugin.
        os.execv(sys.executable, [sys.executable, "-m", PASSED_ON[name][1], *rest])
    if not name.startswith("-") and name not in COMMANDS:
        return _refuse(name)
    with _output_errors(name) as failure:
        if name == "check" and not {"-h", "--help"} & set(rest):
            code: int = importlib.import_module(f"{__name__}.check").run(rest)
            return code
        options = command_parser(name).parse_args(given)
        code = options.run(options)
        sys.stdout.flush()
        return code
    return failure[0]


def command_parser(only: str = "") -> argparse.ArgumentParser:
    """Return the parser of all commands; with `only` that one alone has its arguments."""
    parser = argparse.ArgumentParser(
        "graphdriver",
        description="Test layered-storage drivers for conformance.",
        formatter_class=_format,
    )
    version = importlib.metadata.version("graphdriver-conformance")
    parser.add_argument("--version", action="version", version=f"graphdriver {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if only not in ("", name):
            commands.add_parser(name, help=text)
            continue
        module = importlib.import_module(f"{__name__}.{name}")
        command = commands.add_parser(
            name,
            help=text,
            description=module.__doc__,
            formatter_class=_format,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    for name, (text, _) in PASSED_ON.items():
        commands.add_parser(name, help=f"{text}; has its own --help", add_help=False)
    return parser


def _refuse(name: str) -> int:
    print(command_parser("-").format_help(), file=sys.stderr)
    if name:
        close = difflib.get_close_matches(name, [*COMMANDS, *PASSED_ON], n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        print(f"graphdriver: there is no command {name}{meant}", file=sys.stderr)
    return 2


@contextmanager
def _output_errors(name: str) -> Iterator[list[int]]:
    """Handle errors of standard output; yield a list that receives the exit code.

    A closed pipe, as in `... list | head`, is not an error; a full disk is.
    """
    failure: list[int] = []
    try:
        try:
            yield failure
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        failure.append(128 + signal.SIGPIPE)
    except OSError as error:
        if error.filename is not None:
            raise  # an error of another file: standard output has no name here
        print(f"graphdriver {name}: standard output: {error.strerror}", file=sys.stderr)
        failure.append(_CANNOT_WRITE)
    if failure:
        # The interpreter flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _format(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=36)
