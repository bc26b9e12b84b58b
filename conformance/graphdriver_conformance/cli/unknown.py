"""What is said of a requirement that does not exist."""

import difflib
import sys

from graphdriver_conformance.catalogue.requirement import catalogue

__all__ = ["say_unknown"]


def say_unknown(id: str) -> int:
    """Say so, with the closest one that does, and return the exit code."""
    close = difflib.get_close_matches(id.upper(), catalogue(), n=1)
    meant = f"; did you mean {close[0]}?" if close else ";"
    print(f"graphdriver: no requirement {id}{meant} `graphdriver list` shows them", file=sys.stderr)
    return 4
