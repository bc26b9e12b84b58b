"""The engine of user-mode Linux: the kernel is an unprivileged process of this host.

Its root file system is the host's, read-only; the suite writes to a separate disk. Each kernel
boots in seconds, with one processor and the architecture um, for quick checks.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from graphdriver_vms.errors import MachineFailed
from graphdriver_vms.images.uml_image import UmlImage
from graphdriver_vms.machines.direct import DirectBoot
from graphdriver_vms.machines.engine import Task

__all__ = ["ORDINARY", "UmlEngine", "needed_paths"]

ORDINARY = "ordinary"
"""The user of the cells that are not run by root."""

_MEMORY = 2 << 30
_DISK = 6 << 30
# Directories that are private to the guest; its init creates them.
_OWN = ("/tmp", "/run", "/var/tmp", "/dev", "/proc", "/sys")


class UmlEngine:
    """Boots the kernels of `images`; `state` is a scratch directory, `logs` gets the consoles."""

    def __init__(
        self,
        images: Mapping[str, UmlImage],
        state: Path,
        logs: Path,
        python_path: tuple[Path, ...] = (),
    ) -> None:
        self._images = images
        self._state = state
        self._logs = logs
        self._python_path = python_path
        self._interrupted = threading.Event()

    def run_task(self, task: Task) -> str:
        """Boot a kernel that runs the plan; return its release."""
        image = self._images[task.kernel.name]
        task.report(f"boot {image.release}")
        directory = Path(tempfile.mkdtemp(prefix="uml-", dir=self._state))
        try:
            task.directory.mkdir(parents=True, exist_ok=True)
            (directory / "plan.json").write_text(task.plan)
            self._write_init(directory, task.directory, image)
            _make_disk(directory / "disk")
            return self._boot(directory, image, task).run(task, self._interrupted)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def interrupt(self) -> None:
        """End every running kernel."""
        self._interrupted.set()

    def _boot(self, directory: Path, image: UmlImage, task: Task) -> DirectBoot:
        command = [
            str(image.program),
            f"mem={_MEMORY >> 20}M",
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"),
            f"init={directory}/init",
            f"ubd0={directory}/disk",
            f"uml_dir={directory}",
            *("con=null", "con0=null,fd:1", "ssl=null", "quiet", "panic=-1"),
        ]
        return DirectBoot(
            command,
            _environment(directory),
            self._logs / f"{task.kernel.name}.console",
            directory,
        )

    def _write_init(self, directory: Path, results: Path, image: UmlImage) -> None:
        python_path = os.pathsep.join(map(str, self._python_path))
        reading = needed_paths((directory, *self._python_path, *image.modules_base))
        variables = {
            "PYTHON": sys.executable,
            "PYTHONPATH": python_path,
            "MODULES": str(image.modules_base[0]) if image.modules_base else "",
            "PLAN": str(directory / "plan.json"),
            "RESULTS": str(results),
            "COVERED": "\n".join(sorted({str(one) for path in reading for one in _closed(path)})),
            "READ": "\n".join(map(str, reading)),
            "ORDINARY": ORDINARY,
        }
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        (directory / "variables").write_text(text)
        script = (files("graphdriver_vms") / "guest/uml-init").read_text()
        init = directory / "init"
        init.write_text(script.replace("@VARIABLES@", shlex.quote(str(directory / "variables"))))
        init.chmod(0o755)


def needed_paths(more: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Return the directories of this host that the guest's Python reads, outside of /usr.

    None of them is below another, so that each can be mounted separately.
    """
    ours = (sys.prefix, sys.base_prefix, sys.exec_prefix, *(one for one in sys.path if one))
    found = {Path(one).resolve() for one in ours} | {Path(one).absolute() for one in ours}
    found |= {one.absolute() for one in more}
    found = {one for one in found if one.exists() and not one.is_relative_to("/usr")}
    return tuple(
        sorted(
            one for one in found if not any(one != up and one.is_relative_to(up) for up in found)
        )
    )


def _closed(path: Path) -> list[Path]:
    """Return the topmost directory above `path` that an ordinary user may not search."""
    for one in reversed(path.parents):
        if not one.stat().st_mode & 0o001 and not str(one).startswith(_OWN):
            return [one]
    return []


def _environment(directory: Path) -> dict[str, str]:
    """Return the environment: the guest's memory is a file, in /dev/shm if it is large enough."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    try:
        room = shutil.disk_usage("/dev/shm").free
    except OSError:
        room = 0
    return kept if room >= _MEMORY else {**kept, "TMPDIR": str(directory)}


def _make_disk(disk: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(_DISK)
    program = shutil.which("mke2fs") or "/usr/sbin/mke2fs"
    done = subprocess.run(
        [program, "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0,nodiscard", disk],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MachineFailed(f"mke2fs failed: {done.stderr.strip()[-300:]}")
