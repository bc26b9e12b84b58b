"""The findings of a sweep, as data: shared by the processes of a run, and shown in its report."""

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["KILL_NAME", "FaultFound", "Finding", "Swept", "Where", "ordinal"]

KILL_NAME = "kill"


@dataclass(frozen=True, slots=True)
class Where:
    """One fault: the verb, the fault (`kill`, or the name of an errno), and the call.

    `point` counts the verb's calls from 1 on; 0 is after the last one, when the verb has returned.
    With `with_reads` calls that read are counted, too.
    """

    act: str
    fault: str
    point: int
    with_reads: bool = False

    @property
    def error(self) -> int:
        """The errno, 0 for a kill."""
        return 0 if self.fault == KILL_NAME else getattr(errno, self.fault)


@dataclass(frozen=True, slots=True)
class Finding:
    """A requirement that was violated after one fault.

    `happened` describes the fault and its call; `expected` and `actual` follow it in the report.
    `program` contains the calls of the driver, `tree` the differences of a tree, `strace` is a
    command that causes the same fault, "" if there is none.
    """

    requirement: str
    where: Where
    happened: str
    expected: str
    actual: str
    tree: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    strace: str = ""


@dataclass(slots=True)
class Swept:
    """One verb with one kind of fault: its number of calls, and those at which it was tested."""

    act: str
    calls: int = 0
    tried: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Swept":
        """Read what `to_data` returned."""
        lists = ("tree", "program", "mounts")
        findings = [
            Finding(
                **{
                    **row,
                    "where": Where(**row["where"]),
                    **{name: tuple(row[name]) for name in lists},
                }
            )
            for row in data["findings"]
        ]
        return cls(data["act"], data["calls"], data["tried"], findings, data["notes"])


class FaultFound(AssertionError):
    """A requirement is violated after a fault; the report shows the finding."""

    def __init__(self, finding: Finding) -> None:
        self.expected = finding.expected
        self.actual = f"{finding.happened}: {finding.actual}"
        self.finding = finding
        super().__init__(f"{self.actual}; expected {self.expected}")


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th and so on."""
    if number % 100 not in (11, 12, 13):
        return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number % 10, 'th')}"
    return f"{number}th"
