"""LIF-028: random sequences of verbs, compared with a model."""

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from graphdriver.contract import Capability
from graphdriver.errors import DriverError
from graphdriver_conformance.catalogue.requirement import verifies
from graphdriver_conformance.fixture.subject import Subject
from graphdriver_conformance.oracle.changes import change_findings
from graphdriver_conformance.oracle.compare import assert_same_tree
from graphdriver_conformance.oracle.strategies import successors
from graphdriver_conformance.oracle.tree import Tree
from graphdriver_conformance.suite.support.effort import search


class _Machine(RuleBasedStateMachine):
    """Layers by id: the expected tree, the parent, and the number of holds."""

    layers = Bundle("layers")

    def __init__(self, graphdriver: Subject) -> None:
        super().__init__()
        graphdriver.start_example()
        self.graphdriver = graphdriver
        self.trees: dict[str, Tree] = {}
        self.parents: dict[str, str] = {}
        self.holds: dict[str, int] = {}

    @initialize(target=layers)
    def base(self) -> str:
        """Start with one empty base layer."""
        return self._made("", Tree())

    @rule(target=layers, parent=layers, writable=st.booleans())
    def create(self, parent: str, writable: bool) -> str:
        """Make a child."""
        id = self.graphdriver.new_layer(parent, writable=writable)
        self.trees[id], self.parents[id] = self.trees[parent], parent
        return id

    @rule(layer=layers, data=st.data())
    def write(self, layer: str, data: st.DataObject) -> None:
        """Edit a layer without children."""
        if layer in self.parents.values():
            return
        new = data.draw(successors(self.trees[layer], 3))
        self.graphdriver.fill(layer, new)
        self.trees[layer] = new

    @rule(layer=layers)
    def get(self, layer: str) -> None:
        """Hold a layer."""
        self.graphdriver.get(layer)
        self.holds[layer] = self.holds.get(layer, 0) + 1

    @rule(layer=layers)
    def put(self, layer: str) -> None:
        """Release a hold, if there is one."""
        if self.holds.get(layer):
            self.graphdriver.put(layer)
            self.holds[layer] -= 1

    @rule(target=layers, layer=layers)
    def carry_over(self, layer: str) -> str:
        """Create a sibling from the layer's archive."""
        parent = self.parents[layer]
        archive = self.graphdriver.diff_bytes(layer, parent)
        id = self.graphdriver.new_layer(parent)
        self.graphdriver.apply_diff(id, parent, archive)
        self.trees[id], self.parents[id] = self.trees[layer], parent
        return id

    @rule(layer=layers)
    def changes(self, layer: str) -> None:
        """Get the changes of a layer."""
        parent = self.parents[layer]
        if not self.graphdriver.claims(Capability.CHANGES):
            return
        old = self.trees[parent] if parent else None
        if not all(map(self.graphdriver.can_tell, (old or Tree(), self.trees[layer]))):
            return
        reported = self.graphdriver.changes(layer, parent)
        assert change_findings(old, self.trees[layer], reported) == []

    @rule(target=layers, layer=consumes(layers))
    def remove(self, layer: str) -> object:
        """Remove a layer, unless it has children or is held."""
        if layer in self.parents.values() or self.holds.get(layer) or len(self.trees) == 1:
            return layer
        self.graphdriver.remove(layer)
        assert not self.graphdriver.exists(layer), f"{layer} exists after remove"
        del self.trees[layer], self.parents[layer]
        return multiple()

    @rule()
    def restart(self) -> None:
        """Continue with a new driver; no layer is held then."""
        if self.graphdriver.claims(Capability.RESTARTABLE):
            self.graphdriver.reopen()
            self.holds.clear()

    @rule(layer=layers)
    def look(self, layer: str) -> None:
        """Compare a layer with its model."""
        assert_same_tree(self.trees[layer], self.graphdriver.tree(layer), f"layer {layer}")

    @invariant()
    def all_exist(self) -> None:
        """No layer is lost."""
        lost = [id for id in self.trees if not self.graphdriver.exists(id)]
        assert not lost, f"lost: {lost}"

    def teardown(self) -> None:
        """Compare every layer, then remove all."""
        try:
            for id, tree in self.trees.items():
                assert_same_tree(tree, self.graphdriver.tree(id), f"layer {id}, in the end")
            for id, count in self.holds.items():
                for _ in range(count):
                    self.graphdriver.put(id)
            for id in reversed(self.trees):
                self.graphdriver.remove(id)
        except (AssertionError, DriverError, OSError):
            self.graphdriver.cleanup()
            raise

    def _made(self, parent: str, tree: Tree) -> str:
        id = self.graphdriver.new_layer(parent, writable=True)
        self.trees[id], self.parents[id] = tree, parent
        return id


@verifies("LIF-028")
def test_any_sequence_of_verbs(graphdriver: Subject) -> None:
    """Bugs appear in unexpected combinations of verbs."""
    run_state_machine_as_test(
        lambda: _Machine(graphdriver),  # type: ignore[arg-type]  # a factory will do
        settings=search(12, stateful_step_count=25),
    )
