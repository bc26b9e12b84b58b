"""Warnings of a test in the supervised process, forwarded to pytest's summary."""

import builtins
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from _pytest.warnings import catch_warnings_for_item

__all__ = ["Warned", "forward", "recorded"]


class Warned(NamedTuple):
    """One warning as plain data: its class may be the driver's, which only the child imports."""

    kind: str
    base: str
    text: str
    filename: str
    line: int


@contextmanager
def recorded(item: pytest.Item) -> Iterator[list[Warned]]:
    """Collect the warnings of the block, under the filters of the test."""
    found: list[Warned] = []
    if not item.config.pluginmanager.hasplugin("warnings"):
        yield found
        return
    relay: Any = _Relay(found)
    with catch_warnings_for_item(config=item.config, ihook=relay, when="runtest", item=item):
        yield found


def forward(item: pytest.Item, found: list[Warned]) -> None:
    """Pass warnings to pytest for its summary, or to xdist."""
    for one in found:
        category: type[Warning] = getattr(builtins, one.base)
        is_plain = category.__name__ == one.kind
        message = warnings.WarningMessage(
            message=one.text if is_plain else f"{one.kind}: {one.text}",
            category=category,
            filename=one.filename,
            lineno=one.line,
        )
        item.ihook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": message,
                "nodeid": item.nodeid,
                "when": "runtest",
                "location": None,
            }
        )


class _Relay:
    """Replaces pytest's hooks: warnings recorded in the child are not for its reporters."""

    def __init__(self, found: list[Warned]) -> None:
        self._found = found
        self.pytest_warning_recorded = self

    def call_historic(self, kwargs: dict[str, Any]) -> None:
        """Note a warning."""
        warning: warnings.WarningMessage = kwargs["warning_message"]
        base = next(one for one in warning.category.__mro__ if one.__module__ == "builtins")
        self._found.append(
            Warned(
                warning.category.__name__,
                base.__name__,
                str(warning.message),
                warning.filename,
                warning.lineno,
            )
        )
