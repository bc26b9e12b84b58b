"""The command `graphdriver`: the suite and its catalogue without pytest's vocabulary.

One module for each subcommand, loaded when it is called: `run(arguments)` returns the exit code.
Commands of the other packages are passed on to them as programs, as this one does not import them.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

COMMANDS = {
    "check": ("[SPEC ...] [pytest options]", "judge drivers (default: overlay2)"),
    "list": ("[PREFIX]", "the requirements, one a line"),
    "explain": ("ID", "a requirement: rule, reason, source, tests"),
    "report": ("FILE.json ... -o OUT.html", "result files side by side; also --markdown"),
    "doctor": ("[--graphdriver-home DIR]", "what this machine can show, and how to get the rest"),
    "new": ("NAME", "a skeleton of a driver, with its tests"),
}
PASSED_ON = {
    "fsck": ("HOME", "check an overlay2 home; it is only read", "graphdriver.overlay2.fsck"),
    "serve": ("DRIVER --socket PATH", "be a Docker graphdriver plugin", "graphdriver.plugin"),
    "matrix": ("run [KERNEL ...]", "the suite on many kernels; --help", "graphdriver_vms"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; 2 when there is no such command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else ""
    if name in PASSED_ON:
        # It takes this process over: whoever started `graphdriver serve` can then end it.
        os.execv(sys.executable, [sys.executable, "-m", PASSED_ON[name][2], *given[1:]])
    if name in COMMANDS:
        return _run(name, given[1:])
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    print(_usage(), file=sys.stderr)
    if name:
        print(f"\ngraphdriver: there is no command {name}", file=sys.stderr)
    return 2


def _run(name: str, arguments: list[str]) -> int:
    """Run a subcommand of ours; who reads no further, as in `... list | head`, is no error."""
    try:
        code: int = importlib.import_module(f"{__name__}.{name}").run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _usage() -> str:
    shown = {name: texts[:2] for name, texts in {**COMMANDS, **PASSED_ON}.items()}
    rows = [f"{name} {takes}" for name, (takes, _) in shown.items()]
    width = max(map(len, rows))
    texts = [help for _, help in shown.values()]
    return "usage:\n" + "\n".join(
        f"  graphdriver {row:<{width}}  {text}" for row, text in zip(rows, texts, strict=True)
    )
