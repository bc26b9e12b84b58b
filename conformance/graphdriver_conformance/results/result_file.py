"""The result file: everything that came of a run, as JSON (schema 1)."""

import importlib.metadata
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphdriver_conformance.catalogue.requirement import CATALOGUE_VERSION
from graphdriver_conformance.host.environment import Environment
from graphdriver_conformance.results.outcome import Judgement, Outcome, verdict_of

__all__ = ["Result", "report_path", "write_result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of judging one driver."""

    driver: dict[str, Any]
    environment: Environment
    started: str
    seconds: float
    seed: int
    judged: dict[str, Judgement]

    def counts(self) -> dict[str, int]:
        """Return how many requirements had each outcome."""
        found = Counter(one.outcome for one in self.judged.values())
        return {outcome.value: found[outcome] for outcome in Outcome}

    def as_data(self) -> dict[str, Any]:
        """Return it as the file has it."""
        return {
            "schema": 1,
            "suite": {
                "version": importlib.metadata.version("graphdriver-conformance"),
                "catalogue": CATALOGUE_VERSION,
            },
            "driver": self.driver,
            "environment": self.environment.as_data(),
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "seed": self.seed,
            "verdict": verdict_of(self.judged).value,
            "counts": self.counts(),
            "requirements": [_row(one) for one in self.judged.values()],
        }


def write_result(path: Path, result: Result) -> None:
    """Write the file at once: a reader sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(result.as_data(), indent=1, ensure_ascii=False) + "\n")
    beside.replace(path)


def report_path(asked: str, name: str, several: bool) -> Path:
    """Return where the result of driver `name` goes: with several drivers, FILE-name.json."""
    path = Path(asked)
    safe = "".join(c if c.isalnum() else "-" for c in name).strip("-")
    return path.with_name(f"{path.stem}-{safe}{path.suffix}") if several else path


def _row(one: Judgement) -> dict[str, Any]:
    return {
        "id": one.requirement.id,
        "level": one.requirement.level.value,
        "title": one.requirement.title,
        "outcome": one.outcome.value,
        "seconds": one.seconds,
        "examples": one.examples,
        "detail": one.detail,
        "reproduce": one.reproduce,
    }
