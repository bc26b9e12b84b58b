"""Lay result files side by side, as a page or as Markdown."""

import argparse
import sys
from pathlib import Path

from graphdriver_conformance.results.markdown import markdown
from graphdriver_conformance.results.page import page
from graphdriver_conformance.results.result_file import BadReport, read_results

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.html", help="where it goes")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, on stdout without -o")


def run(options: argparse.Namespace) -> int:
    """Write the report; 4 when a file is no result file, or the report cannot be written."""
    if options.output is None and not options.markdown:
        print(
            "graphdriver report: name the page with -o OUT.html, or ask for --markdown",
            file=sys.stderr,
        )
        return 2
    try:
        runs = read_results(options.files)
        text = markdown(runs) if options.markdown else page(runs)
        if options.output is None:
            sys.stdout.write(text)
        else:
            options.output.write_text(text, "utf-8")
    except BadReport as error:
        print(f"graphdriver report: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        print(f"graphdriver report: {options.output}: {error.strerror}", file=sys.stderr)
        return 4
    return 0
