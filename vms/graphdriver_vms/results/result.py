"""The data of a result file of the suite, schema 1 or 2, that the matrix needs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphdriver_vms.errors import MatrixError

__all__ = [
    "FINISHED",
    "NOT_CONFORMANT",
    "Entry",
    "InitError",
    "Result",
    "parse_result",
    "read_result",
]

# In schema 1 the only mark of a requirement that was not selected.
_NOT_SELECTED_1 = "not selected in this run"
_SCHEMAS = (1, 2)
FINISHED = "finished"
NOT_CONFORMANT = "not-conformant"
_VERDICTS = ("conformant", NOT_CONFORMANT, "inconclusive")
_ENDS = (FINISHED, "interrupted", "crashed")


@dataclass(frozen=True, slots=True)
class Entry:
    """A requirement that was selected; `detail` is for readers, "" if there is none."""

    id: str
    level: str
    title: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class InitError:
    """The error of Init: its class, its message, and the reason that the suite assigned."""

    name: str
    message: str
    reason: str

    @property
    def is_refusal(self) -> bool:
        """Whether the driver refused, as opposed to a hang, a crash or a wrong error."""
        return self.reason == "refused"

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Result:
    """A run of the suite; `entries` are the selected requirements.

    `verdict` and `ended` are copied from the suite: they are not derived here. Schema 1 has no
    `ended`.
    """

    entries: tuple[Entry, ...]
    init_error: InitError | None = None
    verdict: str = ""
    ended: str = FINISHED

    def outcomes(self) -> dict[str, str]:
        """Return the outcomes by requirement."""
        return {one.id: one.outcome for one in self.entries}


def read_result(path: Path) -> Result | None:
    """Read a result file, None when there is none. Raises MatrixError."""
    if not path.is_file():
        return None
    try:
        return parse_result(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MatrixError(
            f"{path} is not a result file: {error}", "remove it, or run again"
        ) from None


def parse_result(data: Mapping[str, Any]) -> Result:
    """Return the content of a result file. Raises ValueError, KeyError, TypeError,
    AttributeError.
    """
    schema = data["schema"]
    if schema not in _SCHEMAS:
        raise ValueError(f"schema {schema} is not known to this version")
    error = data.get("driver", {}).get("init_error")
    verdict, ended = data["verdict"], data["run"]["ended"] if schema > 1 else FINISHED
    if verdict not in _VERDICTS or ended not in _ENDS:
        raise ValueError(f"its verdict is {verdict!r} and its run ended {ended!r}")
    return Result(
        () if error else tuple(_entries(data)),
        InitError(error["class"], error["message"], error["reason"]) if error else None,
        verdict,
        ended,
    )


def _entries(data: Mapping[str, Any]) -> Iterator[Entry]:
    for one in data["requirements"]:
        is_asked = one["outcome"] != "not-selected" and one.get("detail") != _NOT_SELECTED_1
        if is_asked:
            yield Entry(one["id"], one["level"], one["title"], one["outcome"], _detail(one))


def _detail(entry: Mapping[str, Any]) -> str:
    """Return the text of an outcome: `detail` in schema 1, the fields in 2."""
    if entry.get("detail"):
        return str(entry["detail"])
    parts = [
        f"{label}{entry[key]}"
        for key, label in (("actual", ""), ("expected", "expected: "))
        if entry.get(key)
    ]
    if entry.get("blocked_by"):
        parts.insert(0, f"blocked by {', '.join(entry['blocked_by'])}")
    elif entry.get("reason"):
        capability = f" {entry['capability']}" if entry.get("capability") else ""
        parts.insert(0, f"{entry['reason']}{capability}")
    return "\n".join(parts)
