"""Whether some order of concurrent calls explains all results (linearizability).

Wing and Gong's search: of the calls that may be first, take one whose result the model allows, and
continue with the rest. Layers without a parent do not affect each other, so each layer's calls are
checked separately; those of a layer and its descendants are checked together (`FamilyModel`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

__all__ = ["Call", "FamilyModel", "LayerModel", "is_linearisable", "marked_busy"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call on one layer: its start and end by a common counter, and its result.

    `answer` is True for success or for exists' true, False for a refusal or exists' false. `busy`
    means that another call overlapped, which allows a refusal.
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
        """Return the states that may follow the call with its result; [] if there is none."""
        ...


_Model = TypeVar("_Model", bound=Model)


@dataclass(frozen=True, slots=True)
class LayerModel:
    """The state of one layer: whether it exists, and the number of holds."""

    exists: bool = False
    holders: int = 0

    def after(self, call: Call) -> list["LayerModel"]:
        """Return the possible states of the layer after the result of the call; [] if it is not
        allowed.
        """
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
        # Of an unknown layer: success or an error. Of a held one: refused, or unmounted and
        # removed.
        return LayerModel() if self.exists else self


@dataclass(frozen=True, slots=True)
class FamilyModel:
    """A layer and its descendants: id, parent and number of holds of each existing layer.

    `base` is a layer that always exists. `copies` means that a child has its own copy of the
    parent's content, so that the parent may be removed before it; `orphans` that removing an unheld
    parent succeeds and its children fail afterwards (docs/rulings.md, 5); `replaces` that create of
    an existing layer replaces it, during which it does not exist for a moment (docs/rulings.md, 1);
    `excludes` that get of a layer is refused while a layer below it is held, as overlayfs with
    `index=on` refuses the upper directory of a mount as a lower one.
    """

    base: str
    copies: bool = False
    orphans: bool = False
    replaces: bool = False
    excludes: bool = False
    layers: frozenset[tuple[str, str, int]] = frozenset()

    def after(self, call: Call) -> list["FamilyModel"]:
        """Return the possible states of the family after the result of the call; [] if it is not
        allowed.
        """
        found = next((one for one in self.layers if one[0] == call.id), None)
        may_refuse = call.verb in _REFUSABLE or (self.replaces and call.verb == "exists")
        may_refuse = may_refuse and call.busy and not call.answer
        states: list[FamilyModel] = getattr(self, f"_{call.verb}")(call, found)
        return states or ([self] if may_refuse else [])

    def _there(self, id: str) -> bool:
        return id == self.base or any(one[0] == id for one in self.layers)

    def _with(self, old: tuple[str, str, int] | None, new: tuple[str, str, int] | None) -> Self:
        kept = self.layers - ({old} if old else set())
        return replace(self, layers=kept | ({new} if new else set()))

    def _below(self, id: str) -> set[str]:
        """Return the descendants of a layer."""
        direct = {one[0] for one in self.layers if one[1] == id}
        return direct.union(*(self._below(one) for one in direct))

    def _is_whole(self, id: str) -> bool:
        """Return whether all lowers of a layer exist."""
        parents = {one[0]: one[1] for one in self.layers}
        while id != self.base:
            if id not in parents:
                return False
            id = parents[id]
        return True

    def _is_held_below(self, id: str) -> bool:
        """Return whether a lower of a layer is held."""
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
        # A new layer with the same id is not the parent that they had.
        orphaned = {one for one in left if one[1] == call.id}
        made = {(one[0], _GONE, one[2]) for one in orphaned}
        return [replace(self, layers=(left - orphaned) | made)]

    def _apply(self, call: Call, found: tuple[str, str, int] | None) -> list[Self]:
        # A driver may refuse it for a layer in use.
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
    """Return whether some order of the calls, consistent with their times, fits the model."""
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
