"""What every job of a fork server imports and reads, done once in the server (`judgement`).

Not the suite's modules: they read the profile when they are imported.
"""

import importlib
import importlib.metadata

from _pytest.config import default_plugins

from graphdriver_conformance.catalogue.requirement import catalogue

_MODULES = (
    "graphdriver.overlay2",
    "graphdriver.vfs",
    "graphdriver_mutants",
    "graphdriver_conformance.session",
    "hypothesis.stateful",
    *(f"_pytest.{name}" for name in default_plugins),
)

for _name in _MODULES:
    importlib.import_module(_name)
for _plugin in importlib.metadata.entry_points(group="pytest11"):
    _plugin.load()
catalogue()
