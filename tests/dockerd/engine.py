"""A dockerd whose storage driver is a graphdriver of this project, as a plugin.

Debian's docker.io 20.10 with `--experimental`; versions above 27 no longer have the protocol.
dockerd searches /run/docker/plugins for plugins, so the name of the socket contains the pid of this
process.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

from graphdriver_conformance.host.mountinfo import mounts_below

__all__ = ["Engine", "root_file_system"]

_COMMANDS = ["sh", "cat", "echo", "ls", "ln", "mkdir", "mv", "rm", "sleep", "touch", "true", "wc"]
_PLUGINS = Path("/run/docker/plugins")


class Engine:
    """A daemon and its plugin below `base`, a short path: sun_path is limited to 108 bytes."""

    def __init__(self, driver: str) -> None:
        self._driver = driver
        self.name = f"graphdriver{os.getpid()}"
        self.base = Path(tempfile.mkdtemp(prefix="gdd-", dir="/tmp"))
        self.home = self.base / "root" / self.name
        self._socket = _PLUGINS / f"{self.name}.sock"
        self._address = f"unix://{self.base}/sock"
        (self.base / "daemon.json").write_text("{}")
        self._daemon: subprocess.Popen[str] | None = None
        self._plugin: subprocess.Popen[str] | None = None
        self._log: list[str] = []

    def start_plugin(self) -> None:
        """Serve the driver; return when its socket listens."""
        _PLUGINS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "graphdriver.plugin", self._driver]
        self._plugin = subprocess.Popen(
            [*command, "--socket", self._socket], stderr=subprocess.PIPE, text=True
        )
        assert self._plugin.stderr
        output = self._plugin.stderr.readline()
        assert "listens" in output, output

    def end_plugin(self, number: int = signal.SIGTERM) -> None:
        """End the plugin, by default with the signal that an update sends."""
        if self._plugin and self._plugin.stderr:
            self._plugin.send_signal(number)
            self._plugin.communicate(timeout=60)
            self._plugin = None

    def start(self) -> None:
        """Start dockerd; return when its API responds."""
        base = self.base
        command = ["dockerd", f"--config-file={base}/daemon.json", f"--data-root={base}/root"]
        command += [f"--exec-root={base}/exec", f"--pidfile={base}/pid", "-H", self._address]
        command += ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
        command += ["--ip-masq=false", "--userland-proxy=false", "--experimental"]
        command += ["--storage-driver", self.name]
        self._daemon = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        listens = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._daemon, listens))
        self._reader.start()
        assert listens.wait(60), "dockerd says nothing"
        assert self._daemon.poll() is None, f"dockerd ended: {''.join(self._log[-20:])}"

    def _read(self, daemon: "subprocess.Popen[str]", listens: threading.Event) -> None:
        """Read the daemon's output until its end: the daemon blocks when the pipe is full."""
        assert daemon.stderr
        with daemon.stderr as output:
            for line in output:
                self._log.append(line)
                if "API listen on" in line:
                    listens.set()
        daemon.wait()
        listens.set()

    def stop(self) -> None:
        """Stop dockerd and its containers."""
        if self._daemon:
            self._daemon.terminate()
            self._daemon.wait(60)
            self._reader.join(60)
            self._daemon = None

    def close(self) -> None:
        """Stop all processes and remove all files."""
        self.stop()
        self.end_plugin()
        for row in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", row], check=False)
        shutil.rmtree(self.base)
        for left in (self._socket, Path(f"{self._socket}.init")):
            left.unlink(missing_ok=True)

    def docker(self, *arguments: str, feed: bytes = b"") -> bytes:
        """Run a docker command, which must succeed, and return its output."""
        environment = {**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "0"}
        done = subprocess.run(
            ["docker", "-H", self._address, *arguments],
            input=feed, capture_output=True, check=False, env=environment, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
        return done.stdout

    def mounts(self) -> list[str]:
        """Return the mount points below `base`."""
        return [row.point for row in mounts_below(self.base)]

    def layers(self) -> list[str]:
        """Return the layers in the driver's home."""
        return sorted(path.parent.name for path in self.home.glob("*/diff"))


def root_file_system() -> bytes:
    """Return busybox and links to it, as an archive for `docker import`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for name in _COMMANDS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("etc", "data"):
            above = tarfile.TarInfo(name)
            above.type, above.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(above)
        for name, data in {"data/old": b"old\n", "data/gone": b"gone\n"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
