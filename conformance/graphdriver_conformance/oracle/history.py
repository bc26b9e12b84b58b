"""Is there an order of overlapping calls in which each gave what it had to? (linearisability)

Wing and Gong's search: of the calls that may have come first, take one that the model agrees with,
and go on with the rest. Layers do not touch each other, so each layer's calls are judged alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = ["Call", "LayerModel", "is_linearisable"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call on one layer: when it began and ended by a common count, and what it gave.

    `answer` is True for success or for exists' yes, False for a refusal or exists' no.
    """

    verb: str
    began: int
    ended: int
    answer: bool


@dataclass(frozen=True, slots=True)
class LayerModel:
    """What one layer is: whether it is there, and how many hold it."""

    exists: bool = False
    holders: int = 0

    def after(self, call: Call) -> list["LayerModel"]:
        """Return what the layer may be after the call gave its answer; [] when it may not."""
        state: LayerModel | None = getattr(self, f"_{call.verb}")(call.answer)
        return [] if state is None else [state]

    def _create(self, answer: bool) -> "LayerModel | None":
        if answer is self.exists:
            return None
        return LayerModel(True) if answer else self

    def _exists(self, answer: bool) -> "LayerModel | None":
        return self if answer is self.exists else None

    def _get(self, answer: bool) -> "LayerModel | None":
        if answer is not self.exists:
            return None
        return replace(self, holders=self.holders + 1) if answer else self

    def _put(self, answer: bool) -> "LayerModel | None":
        return replace(self, holders=max(0, self.holders - 1))

    def _remove(self, answer: bool) -> "LayerModel | None":
        if self.exists and not answer:
            return self if self.holders else None
        # Of an unknown layer: success or an error. Of a held one: refused, or unmounted and gone.
        return LayerModel() if self.exists else self


def is_linearisable(calls: Sequence[Call], start: LayerModel) -> bool:
    """Say whether some order of the calls, which keeps theirs in time, fits the model."""
    seen: set[tuple[frozenset[Call], LayerModel]] = set()

    def search(left: frozenset[Call], state: LayerModel) -> bool:
        if not left:
            return True
        if (left, state) in seen:
            return False
        seen.add((left, state))
        first_end = min(call.ended for call in left)
        first = [call for call in left if call.began < first_end]
        return any(search(left - {call}, after) for call in first for after in state.after(call))

    return search(frozenset(calls), start)
