"""Result files of shards, joined into the result of one run.

A requirement and one that it depends on may be in different shards: blocked requirements are
determined again. A requirement of a shard whose file is missing is not provable.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphdriver_conformance.catalogue.requirement import catalogue
from graphdriver_conformance.results.folding import blocked
from graphdriver_conformance.results.model import (
    Ended,
    Outcome,
    Reason,
    RequirementResult,
    RunResult,
)
from graphdriver_conformance.shard import Shard

__all__ = ["joined"]


def joined(runs: Iterable[RunResult]) -> list[RunResult]:
    """Return the runs, with shards of one run joined at the position of the first.

    Shards belong to one run if driver, machine, suite and settings are the same, and no shard is
    there twice.
    """
    groups: list[list[RunResult]] = []
    open_group: dict[str, list[RunResult]] = {}
    for run in runs:
        if run.run.shard is None:
            groups.append([run])
            continue
        key = _key(run)
        group = open_group.get(key)
        if group is None or any(one.run.shard == run.run.shard for one in group):
            group = open_group[key] = []
            groups.append(group)
        group.append(run)
    return [_joined(group) if group[0].run.shard else group[0] for group in groups]


def _key(run: RunResult) -> str:
    """Return the properties that shards of one run have in common."""
    shard = Shard.parse(run.run.shard or "1/1")
    facts = {name: value for name, value in run.where.facts.items() if name == "machine.name"}
    return json.dumps(
        [
            *(run.suite, run.catalogue, run.driver.spec, run.driver.options),
            *(run.where.kernel, run.where.machine, run.where.filesystem, run.where.uid, facts),
            *(run.run.profile, run.run.seed, shard.count),
        ]
    )


def _joined(shards: Sequence[RunResult]) -> RunResult:
    first = shards[0]
    count = Shard.parse(first.run.shard or "1/1").count
    lacking = _lacking(shards, count)
    rows = {id: _pick(id, shards, lacking) for id in first.requirements}
    worst = next((one.run.ended for one in shards if one.run.ended is not Ended.FINISHED), None)
    return replace(
        first,
        run=replace(
            first.run,
            shard=None,
            complete=not lacking and all(one.run.complete for one in shards),
            ended=worst or Ended.FINISHED,
        ),
        started=min(one.started for one in shards),
        seconds=max(one.seconds for one in shards),
        requirements=blocked(rows, catalogue()),
    )


def _lacking(shards: Sequence[RunResult], count: int) -> str:
    """Return the shards whose files are missing, "" if there are none."""
    present = {Shard.parse(one.run.shard or "1/1").index for one in shards}
    return ", ".join(f"{index}/{count}" for index in range(1, count + 1) if index not in present)


def _pick(id: str, shards: Sequence[RunResult], lacking: str) -> RequirementResult:
    """Return the result of a requirement from the shard that contains it."""
    found = [one.requirements[id] for one in shards if id in one.requirements]
    for one in found:
        if one.reason is not Reason.SHARD:
            return one
    if not lacking:
        return found[0]
    return replace(
        found[0],
        outcome=Outcome.NOT_PROVABLE,
        reason=Reason.NOT_REPORTED,
        detail=f"it is in a shard whose result file was not given: one of {lacking}",
    )
