"""The verbs of the protocol: decode JSON, call the driver, encode JSON. Independent of HTTP.

Names and absence of fields are Docker's: every field is `omitempty`, so a missing Parent is a layer
without one, and lists may be null.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from graphdriver.contract import Driver, DriverFactory, IDMap
from graphdriver.errors import DriverError, PrerequisitesNotMet
from graphdriver.plugin.memory import Memory

__all__ = ["BadRequest", "Calls"]

Json = dict[str, Any]


class BadRequest(Exception):
    """The request's JSON does not have the form of the call; the driver was not called."""


class Calls:
    """One plugin: a driver factory, and the driver of the last Init."""

    def __init__(
        self, factory: DriverFactory, home: str = "", memory: Memory | None = None
    ) -> None:
        """Serve the drivers of `factory`; `home`, if given, takes precedence over Docker's.

        `memory` stores the last Init: Docker sends one only when it starts, and does not notice
        that a plugin was restarted while containers run.
        """
        self._factory = factory
        self._home = home
        self._memory = memory
        self._driver: Driver | None = None
        self._initialising = threading.Lock()
        self.json: Mapping[str, Callable[[Json], Json]] = {
            "Plugin.Activate": lambda _: {"Implements": ["GraphDriver"]},
            "GraphDriver.Init": self._init,
            "GraphDriver.Capabilities": self._capabilities,
            "GraphDriver.Create": self._create,
            "GraphDriver.CreateReadWrite": self._create_read_write,
            "GraphDriver.Remove": self._remove,
            "GraphDriver.Get": self._get,
            "GraphDriver.Put": self._put,
            "GraphDriver.Exists": lambda body: {"Exists": self.driver.exists(_text(body, "ID"))},
            "GraphDriver.Status": lambda _: {"Status": [list(row) for row in self.driver.status()]},
            "GraphDriver.GetMetadata": self._get_metadata,
            "GraphDriver.Cleanup": self._cleanup,
            "GraphDriver.Changes": self._changes,
            "GraphDriver.DiffSize": self._diff_size,
        }

    @property
    def driver(self) -> Driver:
        """The driver; raises PrerequisitesNotMet before the first Init."""
        if self._driver is None:
            raise PrerequisitesNotMet("no driver yet", "call GraphDriver.Init first")
        return self._driver

    def diff(self, body: Json) -> BinaryIO:
        """Return the archive that GraphDriver.Diff streams."""
        return self.driver.diff(_text(body, "ID"), _text(body, "Parent"))

    def apply_diff(self, id: str, parent: str, archive: BinaryIO) -> Json:
        """Answer GraphDriver.ApplyDiff, whose arguments are in the query."""
        return {"Size": self.driver.apply_diff(id, parent, archive)}

    def remember(self) -> None:
        """Continue with the driver of the previous process, if it had one."""
        body = self._memory.recall() if self._memory else None
        if body is not None:
            self._init(body)

    def _init(self, body: Json) -> Json:
        """Create the driver, a new one each time: a restarted daemon has forgotten its gets."""
        home = self._home or _text(body, "Home")
        if not home:
            raise BadRequest("Init names no Home, and the server was started without --home")
        options = body.get("Opts") or []
        if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
            raise BadRequest("Opts is not a list of strings")
        with self._initialising:
            self._driver = self._factory(
                home, options, _id_maps(body, "UIDMaps"), _id_maps(body, "GIDMaps")
            )
            if self._memory:
                self._memory.keep({**body, "Home": home})
        return {}

    def _capabilities(self, _: Json) -> Json:
        """Return Docker's capability; in addition, for the suite, the driver's claims.

        A diff after apply_diff has other bytes than the archive (order, PAX records), so Docker
        must keep its own tar-split data. It ignores unknown fields.
        """
        answer: Json = {"Capabilities": {"ReproducesExactDiffs": False}}
        claims = getattr(self._driver, "capabilities", None)
        if claims is not None:
            answer |= {"Claims": sorted(map(str, claims))}
            answer |= {"LayerLimit": getattr(self._driver, "layer_limit", 0)}
        return answer

    def _create(self, body: Json) -> Json:
        self.driver.create(*_creation(body))
        return {}

    def _create_read_write(self, body: Json) -> Json:
        self.driver.create_read_write(*_creation(body))
        return {}

    def _remove(self, body: Json) -> Json:
        self.driver.remove(_text(body, "ID"))
        return {}

    def _put(self, body: Json) -> Json:
        self.driver.put(_text(body, "ID"))
        return {}

    def _cleanup(self, _: Json) -> Json:
        self.driver.cleanup()
        return {}

    def _get(self, body: Json) -> Json:
        return {"Dir": str(self.driver.get(_text(body, "ID"), _text(body, "MountLabel")))}

    def _get_metadata(self, body: Json) -> Json:
        return {"Metadata": self.driver.get_metadata(_text(body, "ID"))}

    def _changes(self, body: Json) -> Json:
        found = self.driver.changes(_text(body, "ID"), _text(body, "Parent"))
        try:
            rows = [{"Path": one.path.decode(), "Kind": int(one.kind)} for one in found]
        except UnicodeDecodeError as error:
            raise DriverError(
                f"the path {error.object!r} is not UTF-8, which JSON cannot carry",
                "ask for the diff, which can",
            ) from None
        return {"Changes": rows}

    def _diff_size(self, body: Json) -> Json:
        return {"Size": self.driver.diff_size(_text(body, "ID"), _text(body, "Parent"))}


def _text(body: Json, key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{key} is not a string")
    return value


def _creation(body: Json) -> tuple[str, str, str, dict[str, str]]:
    storage_opt = body.get("StorageOpt") or {}
    if not isinstance(storage_opt, dict) or not all(
        isinstance(text, str) for pair in storage_opt.items() for text in pair
    ):
        raise BadRequest("StorageOpt is not an object of strings")
    return _text(body, "ID"), _text(body, "Parent"), _text(body, "MountLabel"), storage_opt


def _id_maps(body: Json, key: str) -> list[IDMap]:
    maps = body.get(key) or []
    if not isinstance(maps, list):
        raise BadRequest(f"{key} is not a list")
    # The protocol has container_id; the documentation, incorrectly, ContainerID. No client sends
    # the latter, and Go's decoder would not accept it either: the underscore is significant.
    try:
        return [IDMap(one["container_id"], one["host_id"], one["size"]) for one in maps]
    except (KeyError, TypeError):
        raise BadRequest(f"{key} needs container_id, host_id and size in each entry") from None
