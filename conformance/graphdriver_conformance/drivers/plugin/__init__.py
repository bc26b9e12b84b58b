"""The SPECs of plugins: `plugin+unix:///path/of.sock` and `plugin+exec:COMMAND`.

A running plugin has one driver, that of the last Init, for all clients. A plugin that the suite
starts has a process for each driver in use; after cleanup the process is reused for the next home,
because starting an interpreter takes longer than a test.
"""

import atexit
import os
from collections.abc import Sequence
from pathlib import Path

from graphdriver.contract import Driver, IDMap
from graphdriver.errors import DriverError
from graphdriver_conformance.drivers.plugin.client import PluginUnreachable, Wire
from graphdriver_conformance.drivers.plugin.driver import PluginDriver
from graphdriver_conformance.drivers.plugin.process import PluginProcess, words_of
from graphdriver_conformance.drivers.resolve import (
    BadSpec,
    DriverProcesses,
    DriverSource,
    Enter,
    OwnProcess,
)
from graphdriver_conformance.host.processes import kill_tree

__all__ = ["ListeningPlugin", "StartedPlugins", "source"]

_Home = str | os.PathLike[str]
_Maps = Sequence[IDMap]


def source(spec: str) -> DriverSource:
    """Return the plugin that `spec` names: a running one, or one to be started."""
    scheme, _, rest = spec.partition(":")
    offers = frozenset({"plugin"})
    if scheme == "plugin+exec":
        try:
            started = StartedPlugins(words_of(rest))
        except ValueError as error:
            raise BadSpec(f"{spec}: {error}") from None
        return DriverSource(
            spec, started.make, False, offers, processes=started, start=started.start
        )
    if not rest.startswith("///"):
        raise BadSpec(f"{spec}: name the socket as plugin+unix:///path/of.sock")
    listening = ListeningPlugin(Path(rest.removeprefix("//")))
    return DriverSource(spec, listening.make, False, offers, False, True, listening)


class ListeningPlugin(DriverProcesses):
    """The plugin that listens on the socket `path`, which the suite did not start."""

    def __init__(self, path: Path) -> None:
        self._wire = Wire(path)

    def make(
        self, home: Path, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> Driver:
        """Init the plugin with another home."""
        return PluginDriver(self._wire, home, options, uid_maps, gid_maps)

    def process_of(self, driver: Driver) -> int:
        """Return the id of the process that listens on the socket."""
        return self._wire.listener()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()


class StartedPlugins(DriverProcesses):
    """Plugins started with the command `words`, one for each driver in use."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._idle: list[PluginDriver] = []
        self._busy: list[PluginDriver] = []
        atexit.register(self.close)

    def make(
        self, home: Path, options: Sequence[str] = (), uid_maps: _Maps = (), gid_maps: _Maps = ()
    ) -> Driver:
        """Init an unused plugin, or a new one; a plugin that refuses Init is not reused."""
        if self._idle:
            idle = self._idle.pop()
            try:
                return self._kept(
                    PluginDriver(idle.wire, home, options, uid_maps, gid_maps, idle.process)
                )
            except (DriverError, PluginUnreachable):
                _end(idle, killed=False)  # possibly a plugin that accepts Init only once
        process = PluginProcess(self._words)
        wire = Wire(process.socket)
        try:
            return self._kept(PluginDriver(wire, home, options, uid_maps, gid_maps, process))
        except BaseException:
            wire.close()
            process.end(killed=wire.failed)
            raise

    def start(self, enter: Enter | None) -> OwnProcess:
        """Start a plugin that is used for one driver only."""
        return _Own(PluginProcess(self._words, enter))

    def release(self, driver: Driver) -> None:
        """Keep its process for the next driver, unless it failed to answer."""
        if used := self._find_used(driver):
            if used.wire.failed:
                _end(used, killed=True)
            else:
                self._idle.append(used)

    def end(self, driver: Driver, *, killed: bool) -> None:
        """End its process."""
        if used := self._find_used(driver):
            _end(used, killed=killed)

    def process_of(self, driver: Driver) -> int:
        """Return the process that was started."""
        used = next((one for one in self._busy if one is driver), None)
        return used.process.id if used and used.process else 0

    def last_output(self, driver: Driver) -> list[str]:
        """Return the last lines that its process printed, which may contain an exception."""
        used = next((one for one in self._busy if one is driver), None)
        return used.process.last_output() if used and used.process else []

    def keep_output(self, driver: Driver, directory: Path) -> None:
        """Copy the output of its process to `directory`/plugin.log."""
        used = next((one for one in self._busy if one is driver), None)
        if used and used.process:
            used.process.keep_output(directory / "plugin.log")

    def close(self) -> None:
        """End all of them."""
        while self._idle or self._busy:
            _end((self._idle or self._busy).pop(), killed=False)
        atexit.unregister(self.close)

    def _kept(self, driver: PluginDriver) -> PluginDriver:
        self._busy.append(driver)
        return driver

    def _find_used(self, driver: Driver) -> PluginDriver | None:
        used = next((one for one in self._busy if one is driver), None)
        if used:
            self._busy.remove(used)
        return used


class _Own:
    """A plugin's process before and after Init; see OwnProcess."""

    def __init__(self, process: PluginProcess) -> None:
        self._process = process
        self._wire = Wire(process.socket)
        self._home: bytes | None = None

    def init(self, home: Path, options: tuple[str, ...]) -> Driver:
        """Activate and Init."""
        self._home = os.fsencode(home)
        return PluginDriver(self._wire, home, options, (), (), self._process)

    def processes(self) -> list[int]:
        """Return the plugin."""
        return [self._process.id]

    def end(self) -> None:
        """Kill it, and processes that have left its group as well."""
        self._wire.close()
        kill_tree(self.processes(), self._home)
        self._process.end(killed=True)


def _end(driver: PluginDriver, *, killed: bool) -> None:
    driver.wire.close()
    if driver.process:
        driver.process.end(killed=killed)
