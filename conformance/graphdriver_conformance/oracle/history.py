"""Is there an order of overlapping calls in which each gave what it had to? (linearisability)

Wing and Gong's search: of the calls that may have come first, take one that the model agrees with,
and go on with the rest. Layers without parents do not touch each other, so each layer's calls are
judged alone; those of layers that stand on each other are judged together (`FamilyModel`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

__all__ = ["Call", "FamilyModel", "LayerModel", "is_linearisable", "marked_busy"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call on one layer: when it began and ended by a common count, and what it gave.

    `answer` is True for success or for exists' yes, False for a refusal or exists' no. `busy` says
    that another call overlapped, which is a reason to refuse.
    """

    verb: str
    began: int
    ended: int
    answer: bool
    id: str = ""
    parent: str = ""
    busy: bool = False


class Model(Protocol):
    """A state; hashable."""

    def after(self, call: Call) -> list[Self]:
        """Return the states that may follow the call with its answer; [] where none may."""
        ...


_Model = TypeVar("_Model", bound=Model)


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


@dataclass(frozen=True, slots=True)
class FamilyModel:
    """Layers that stand on each other: id, parent and number of holders of each that is there.

    `ground` is a layer that is always there. `copies` says that a child has its own copy of what
    its parent holds, so that the parent may be removed before it; `orphans` that removing a
    parent that nobody holds succeeds and its children fail from then on (docs/rulings.md, 5);
    `replaces` that create of a layer that is there makes another one in its place, which is away
    for a moment (docs/rulings.md, 1); `excludes` that get of a layer is refused while a layer below
    it is held, as overlayfs with `index=on` refuses the upper directory of a mount as a lower one.
    """

    ground: str
    copies: bool = False
    orphans: bool = False
    replaces: bool = False
    excludes: bool = False
    layers: frozenset[tuple[str, str, int]] = frozenset()

    def after(self, call: Call) -> list["FamilyModel"]:
        """Return what the family may be after the call gave its answer; [] when it may not."""
        found = next((one for one in self.layers if one[0] == call.id), None)
        may_refuse = call.verb in _REFUSABLE or (self.replaces and call.verb == "exists")
        may_refuse = may_refuse and call.busy and not call.answer
        states: list[FamilyModel] = getattr(self, f"_{call.verb}")(call, found)
        return states or ([self] if may_refuse else [])

    def _there(self, id: str) -> bool:
        return id == self.ground or any(one[0] == id for one in self.layers)

    def _with(self, old: tuple[str, str, int] | None, new: tuple[str, str, int] | None) -> Self:
        kept = self.layers - ({old} if old else set())
        return replace(self, layers=kept | ({new} if new else set()))

    def _below(self, id: str) -> set[str]:
        """Return the descendants of a layer."""
        direct = {one[0] for one in self.layers if one[1] == id}
        return direct.union(*(self._below(one) for one in direct))

    def _is_whole(self, id: str) -> bool:
        """Say whether all layers below one are there."""
        parents = {one[0]: one[1] for one in self.layers}
        while id != self.ground:
            if id not in parents:
                return False
            id = parents[id]
        return True

    def _is_held_below(self, id: str) -> bool:
        """Say whether a layer below one is held."""
        states = {one[0]: one for one in self.layers}
        while id in states:
            id = states[id][1]
            if id in states and states[id][2]:
                return True
        return False

    def _create(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        possible = found is None and self._there(call.parent)
        if not call.answer:
            return [] if possible and (self.copies or self._is_whole(call.parent)) else [self]
        if found and self.replaces and self._there(call.parent):
            return [self._with(found, (call.id, call.parent, 0))]
        return [self._with(None, (call.id, call.parent, 0))] if possible else []

    def _exists(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        return [self] if call.answer is (found is not None) else []

    def _get(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        if found is None:
            return [] if call.answer else [self]
        id, parent, holders = found
        if not call.answer:
            if self.excludes and not holders and self._is_held_below(id):
                return [self]
            return [] if self.copies or self._is_whole(id) else [self]
        return [self._with(found, (id, parent, holders + 1))]

    def _put(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        if found is None:
            return [self]
        id, parent, holders = found
        return [self._with(found, (id, parent, max(0, holders - 1)))]

    def _remove(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        if found is None:
            return [self]
        below = self._below(call.id)
        held_below = any(one[0] in below and one[2] for one in self.layers)
        if not call.answer:
            return [self] if found[2] or below else []
        if below and not self.copies and (held_below or not self.orphans):
            return []
        left = self._with(found, None).layers
        # A layer that is made with the same id is not the parent that they had.
        orphaned = {one for one in left if one[1] == call.id}
        made = {(one[0], _GONE, one[2]) for one in orphaned}
        return [replace(self, layers=(left - orphaned) | made)]

    def _apply(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        # Whether it is refused for a layer in use is left to the driver.
        return [] if call.answer and found is None else [self]


_GONE = ""
_REFUSABLE = frozenset({"create", "get", "remove"})


def marked_busy(calls: Sequence[Call]) -> list[Call]:
    """Return the calls, each with whether another one overlaps it."""
    return [
        replace(
            one,
            busy=any(
                other is not one and other.began < one.ended and one.began < other.ended
                for other in calls
            ),
        )
        for one in calls
    ]


def is_linearisable(calls: Sequence[Call], start: _Model) -> bool:
    """Say whether some order of the calls, which keeps theirs in time, fits the model."""
    seen: set[tuple[frozenset[Call], _Model]] = set()

    def search(left: frozenset[Call], state: _Model) -> bool:
        if not left:
            return True
        if (left, state) in seen:
            return False
        seen.add((left, state))
        first_end = min(call.ended for call in left)
        first = [call for call in left if call.began < first_end]
        return any(search(left - {call}, after) for call in first for after in state.after(call))

    return search(frozenset(calls), start)
