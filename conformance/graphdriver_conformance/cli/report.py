"""Show result files and journals as text, as a page or as Markdown, or compare two of them."""

import argparse
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from graphdriver_conformance.results import diff, terminal
from graphdriver_conformance.results.markdown import diff_markdown, markdown
from graphdriver_conformance.results.page import diff_page, page
from graphdriver_conformance.results.printable import printable
from graphdriver_conformance.results.result_file import BadReport, read_results
from graphdriver_conformance.results.shards import joined

__all__ = ["add_arguments", "run"]

_COLOURS = {"red": 31, "green": 32, "yellow": 33}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE.json",
        help="result files, or journals of runs; those of shards are joined",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.html", help="write a page there instead of text"
    )
    parser.add_argument("--markdown", action="store_true", help="as Markdown, on stdout without -o")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="compare an older file with a newer one; "
        "the exit code is 1 when a requirement is newly violated",
    )


def run(options: argparse.Namespace) -> int:
    """Write the report, and return the exit code.

    1 when a requirement is newly violated, 2 when `--diff` has not two files, 4 when a file is no
    result file, or the report cannot be written.
    """
    if options.diff and len(options.files) != 2:
        print("graphdriver report: --diff takes two files, OLD.json NEW.json", file=sys.stderr)
        return 2
    try:
        text, code = _diff(options) if options.diff else (_report(options), 0)
        if options.output is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="backslashreplace")
            sys.stdout.write(text)
        else:
            options.output.write_text(text, "utf-8")
    except (BadReport, diff.NotComparable) as error:
        print(f"graphdriver report: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        if options.output is None:
            raise  # standard output
        print(f"graphdriver report: {options.output}: {error.strerror}", file=sys.stderr)
        return 4
    return code


def _report(options: argparse.Namespace) -> str:
    runs = joined(read_results(options.files))
    if options.markdown:
        return markdown(runs)
    if options.output:
        return page(runs)
    return "\n".join(_plain(terminal.lines(run)) for run in runs)


def _diff(options: argparse.Namespace) -> tuple[str, int]:
    old, new = (joined(read_results([path])) for path in options.files)
    differences = diff.compare(old, new)
    code = 1 if any(one.newly_violated for one in differences) else 0
    if options.markdown:
        return diff_markdown(differences), code
    if options.output:
        return diff_page(differences), code
    return "\n".join(_plain(diff.lines(one)) for one in differences), code


def _plain(lines: Iterable[tuple[str, str]]) -> str:
    """Return lines with their colours where standard output is a terminal that shows them."""
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return "".join(
        f"\x1b[{_COLOURS[colour]}m{printable(text)}\x1b[0m\n"
        if colours and colour
        else f"{printable(text)}\n"
        for text, colour in lines
    )
