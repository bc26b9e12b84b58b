"""The closed sets of words in a result: outcomes, their reasons, verdicts, and ends of a run."""

from enum import StrEnum

__all__ = ["FATAL", "Ended", "Outcome", "Reason", "Verdict"]


class Outcome(StrEnum):
    """The outcome of a requirement. A skip is never a pass."""

    MET = "met"
    VIOLATED = "violated"
    NOT_CLAIMED = "not-claimed"
    NOT_PROVABLE = "not-provable"
    BLOCKED = "blocked"
    WAIVED = "waived"
    ERROR = "error"
    NOT_SELECTED = "not-selected"


class Reason(StrEnum):
    """The reason of an outcome; None for one that is met."""

    # violated
    MISMATCH = "mismatch"
    NOT_REFUSED = "not-refused"
    RAISED = "raised"
    WRONG_ERROR = "wrong-error"
    WRONG_TYPE = "wrong-type"
    PROCESS_DIED = "process-died"
    DEADLINE = "deadline"
    # not-claimed
    NO_CAPABILITY = "no-capability"
    TRANSPORT = "transport"
    # not-provable
    ENVIRONMENT = "environment"
    INIT_REFUSED = "init-refused"
    NOT_REPORTED = "not-reported"
    # blocked, waived, not-selected, error
    RESTS_ON = "rests-on"
    WAIVER = "waiver"
    BASELINE = "baseline"
    SELECTION = "selection"
    SHARD = "shard"
    SUITE = "suite"


FATAL = frozenset({Reason.PROCESS_DIED, Reason.DEADLINE})
"""Reasons after which a requirement that depends on the violated one is not run."""


class Verdict(StrEnum):
    """The verdict on the driver."""

    CONFORMANT = "conformant"
    NOT_CONFORMANT = "not-conformant"
    INCONCLUSIVE = "inconclusive"


class Ended(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
