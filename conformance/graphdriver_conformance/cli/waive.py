"""Write waivers for the violations of a result file; reasons and issues are to be filled in."""

import argparse
import datetime
import sys
from pathlib import Path

from graphdriver_conformance.results.result_file import BadReport, read_results
from graphdriver_conformance.results.waivers import draft_waivers

__all__ = ["add_arguments", "run"]

_DAYS = 90


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "file", type=Path, metavar="RESULT.json", help="result file of --graphdriver-report"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.toml", help="default: stdout")
    parser.add_argument(
        "--until",
        type=datetime.date.fromisoformat,
        default=datetime.date.today() + datetime.timedelta(_DAYS),
        metavar="DAY",
        help=f"last day of each waiver, such as 2027-03-01 (default: in {_DAYS} days)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the file; 1 if there is no violation, 4 if a file cannot be read or written."""
    try:
        outcomes = {
            id: one.outcome.value
            for result in read_results([options.file])
            for id, one in result.requirements.items()
        }
        text = draft_waivers(outcomes, options.until)
        if not text:
            print(f"graphdriver waive: {options.file} has no violation", file=sys.stderr)
            return 1
        if options.output is None:
            sys.stdout.write(text)
        else:
            with options.output.open("x", encoding="utf-8") as file:
                file.write(text)
    except BadReport as error:
        print(f"graphdriver waive: {error}", file=sys.stderr)
        return 4
    except OSError as error:
        if error.filename is None:
            raise  # standard output
        print(f"graphdriver waive: {error.filename}: {error.strerror}", file=sys.stderr)
        return 4
    return 0
