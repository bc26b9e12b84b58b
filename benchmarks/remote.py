"""The plugin server compared with the driver in this process: `graphdriver serve` on a socket.

The client sends and reads in chunks of 32 KiB, as dockerd does.
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import trees
from benchmarks.comparison import Aim, Candidate, Comparison, between
from benchmarks.comparisons import OURS, apply_file, drain
from benchmarks.workspace import Record, Workspace

__all__ = ["through_socket"]

REMOTE = "overlay2 through its socket"
_CHUNK_SIZE = 32 << 10
_DEADLINE = 60.0


def through_socket(workspace: Workspace, record: Record) -> None:
    """exists, diff and apply through the socket, and in this process."""
    driver = workspace.driver
    _, archive = workspace.archive(partial(trees.big, size=workspace.sizes.big))
    driver.create("packed")
    apply_file(driver, "packed", "", archive)
    title = f"one file of {workspace.sizes.big >> 20:,} MiB"
    repeats = workspace.sizes.repeats
    with _server(workspace.spare / "plugin.sock", workspace.place / "served") as client:
        client.call("Create", ID="packed", Parent="")
        client.apply("packed", archive)
        candidates = (
            Candidate(REMOTE, lambda: [client.call("Exists", ID="packed") for _ in range(repeats)]),
            Candidate(OURS, lambda: [driver.exists("packed") for _ in range(repeats)]),
        )
        record.measure(Comparison(f"exists, {repeats} times", candidates))
        candidates = (
            Candidate(OURS, partial(drain, driver, "packed")),
            Candidate(REMOTE, partial(client.diff, "packed")),
        )
        aims = (Aim(REMOTE, OURS, 1.2),)
        record.measure(Comparison(f"diff through the socket, {title}", candidates, aims))
        local = partial(between, partial(driver.create, "fresh"), partial(driver.remove, "fresh"))
        create, remove = partial(client.call, "Create"), partial(client.call, "Remove")
        remote = partial(
            between, partial(create, ID="fresh", Parent=""), partial(remove, ID="fresh")
        )
        candidates = (
            Candidate(OURS, partial(apply_file, driver, "fresh", "", archive), local),
            Candidate(REMOTE, partial(client.apply, "fresh", archive), remote),
        )
        record.measure(Comparison(f"apply through the socket, {title}", candidates, aims))


class _Client:
    """A connection to a plugin."""

    def __init__(self, path: Path) -> None:
        self._connection = http.client.HTTPConnection("plugin")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(str(path))

    def call(self, verb: str, **body: str) -> Mapping[str, object]:
        """Call a verb with a JSON response."""
        self._connection.request("POST", f"/GraphDriver.{verb}", json.dumps(body).encode())
        return self._answer()

    def diff(self, layer: str) -> None:
        """Read an archive to its end."""
        body = json.dumps({"ID": layer, "Parent": ""}).encode()
        self._connection.request("POST", "/GraphDriver.Diff", body)
        response = self._connection.getresponse()
        buffer = bytearray(_CHUNK_SIZE)
        while response.readinto(buffer):
            pass

    def apply(self, layer: str, archive: Path) -> None:
        """Send an archive in chunks."""
        with archive.open("rb", buffering=0) as stream:
            chunks = iter(partial(stream.read, _CHUNK_SIZE), b"")
            path = f"/GraphDriver.ApplyDiff?id={layer}&parent="
            headers = {"Transfer-Encoding": "chunked"}
            self._connection.request("POST", path, chunks, headers, encode_chunked=True)
        self._answer()

    def _answer(self) -> Mapping[str, object]:
        response = self._connection.getresponse()
        answer: Mapping[str, object] = json.loads(response.read())
        if response.status != 200 or answer.get("Err"):
            raise RuntimeError(f"the plugin answers {response.status}: {answer}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def _server(path: Path, home: Path) -> Iterator[_Client]:
    command = ["-m", "graphdriver.plugin", "overlay2", "--socket", str(path), "--home", str(home)]
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + _DEADLINE
            while not path.exists():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("graphdriver serve does not listen")
                time.sleep(0.02)
            client = _Client(path)
            client.call("Init", Home=str(home))
            yield client
            client.close()
        finally:
            process.terminate()
