"""The message about a requirement that does not exist."""

import difflib
import sys

from graphdriver_conformance.catalogue.requirement import catalogue

__all__ = ["report_unknown_id"]


def report_unknown_id(id: str) -> int:
    """Print the message, with the closest existing id or family, and return the exit code."""
    families = {one.family for one in catalogue().values()}
    close = difflib.get_close_matches(id.upper(), [*families, *catalogue()], n=1)
    meant = f"; did you mean {close[0]}?" if close else ";"
    print(f"graphdriver: no requirement {id}{meant} `graphdriver list` shows them", file=sys.stderr)
    return 4
