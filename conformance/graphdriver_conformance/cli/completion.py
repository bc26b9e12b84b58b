"""Print a script that completes the command `graphdriver` in bash.

To use it: eval "$(graphdriver completion)"
"""

import argparse

from graphdriver_conformance import plugin
from graphdriver_conformance.catalogue.requirement import catalogue

__all__ = ["add_arguments", "run"]

_SCRIPT = """\
_graphdriver() {{
    local words
    case "${{COMP_WORDS[1]}}" in
{cases}
    *) words="" ;;
    esac
    [ "$COMP_CWORD" -eq 1 ] && words="{commands}"
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _graphdriver graphdriver
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the command has none."""


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from graphdriver_conformance.cli import COMMANDS, command_parser

    ids = sorted({one.family for one in catalogue().values()} | set(catalogue()))
    positional = {"check": plugin.driver_names(), "list": ids, "explain": ids}
    cases = [
        f'    {name}) words="{" ".join([*positional.get(name, ()), *_options(parser)])}" ;;'
        for name, parser in _commands(command_parser()).items()
        if name in COMMANDS
    ]
    names = " ".join([*_commands(command_parser("-")), "--help", "--version"])
    print(_SCRIPT.format(cases="\n".join(cases), commands=names), end="")
    return 0


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (commands,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(commands.choices)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [name for name in parser._option_string_actions if name.startswith("--")]
