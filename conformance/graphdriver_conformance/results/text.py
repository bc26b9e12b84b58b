"""A result in lines of text: for the terminal, pytest's failures, Markdown, JUnit and HTML."""

from collections.abc import Iterator

from graphdriver_conformance.results.model import Outcome, RequirementResult

__all__ = ["finding", "headline"]

_BLOCKS = ("tree", "example", "notes", "program", "mounts", "output")


def headline(result: RequirementResult) -> str:
    """Return a summary of the result in one line, "" if there is none."""
    if result.outcome is Outcome.BLOCKED:
        return f"rests on {', '.join(result.blocked_by)}"
    if result.outcome in (Outcome.VIOLATED, Outcome.ERROR):
        return result.actual or result.detail or ""
    return result.detail or ""


def finding(result: RequirementResult, *, below_title: bool = False) -> Iterator[str]:
    """Yield the lines of a violation, or of an error of the suite, without its id and title.

    With `below_title`, an expectation that only repeats the title is omitted.
    """
    if result.detail:
        yield result.detail
    repeats = below_title and result.expected == result.title
    if result.expected is not None and not repeats:
        yield f"expected:  {result.expected}"
    if result.actual is not None:
        yield f"actual:    {result.actual}"
    if result.capability:
        yield f"because:   the driver claims {result.capability}"
    for name in _BLOCKS:
        if lines := getattr(result, name):
            yield f"{name}:"
            yield from (f"  {line}" for line in lines)
    if result.failures > 1:
        others = result.failures - 1
        yield f"and {others} more test{'s' * (others > 1)} of this requirement failed"
    if result.kept:
        yield f"home:      kept in {result.kept}"
