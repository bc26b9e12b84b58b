"""The command `graphdriver`: the suite and its catalogue without pytest's vocabulary.

One module for each subcommand, loaded when it is called. `add_arguments(parser)` describes its
arguments, `run(options)` returns the exit code; `check`, whose arguments are pytest's, gets them as
they are. Commands of the other packages are passed on to them as programs, as this one does not
import them.
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
    "check": "judge drivers (default: overlay2)",
    "list": "the requirements, one a line, or the capabilities",
    "explain": "a requirement or a family: rule, reason, source, tests",
    "report": "result files as text, page or Markdown; the difference of two",
    "waive": "a file of waivers for the violations of a result file",
    "doctor": "what this machine can show, and how to get the rest",
    "new": "a skeleton of a driver, with its tests",
    "completion": "a script that completes this command in bash",
}
PASSED_ON = {
    "fsck": ("check an overlay2 home, which is only read", "graphdriver.overlay2.fsck"),
    "serve": ("be a Docker graphdriver plugin", "graphdriver.plugin"),
    "matrix": ("the suite on many kernels, in virtual machines", "graphdriver_vms"),
}
_CANNOT_WRITE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 when there is no such command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, *rest = given or [""]
    if name in PASSED_ON:
        # It takes this process over: whoever started `graphdriver serve` can then end it.
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
        description="Judge layered-storage drivers; read the catalogue of what is asked of them.",
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
    """Catch what comes of writing to standard output; yield a list that gets the exit code.

    Who reads no further, as in `... list | head`, is no error; a full disk is one.
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
            raise  # not standard output, which has no name here
        print(f"graphdriver {name}: standard output: {error.strerror}", file=sys.stderr)
        failure.append(_CANNOT_WRITE)
    if failure:
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _format(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=36)
