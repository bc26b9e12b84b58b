"""A driver in a separate process: `OtherProcess("overlay2", home).call("create", "child")`."""

import base64
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["OtherProcess"]


class OtherProcess:
    """Executes one verb for each call, until the block ends or the process is killed."""

    def __init__(self, driver: str, home: Path) -> None:
        command = [sys.executable, __file__, driver, str(home)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, verb: str, *arguments: str | bytes) -> str:
        """Return "ok", or the class of the error, with the message unless it is a refusal."""
        coded = [
            {"archive": base64.b64encode(one).decode()} if isinstance(one, bytes) else one
            for one in arguments
        ]
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([verb, *coded]) + "\n")
        self._process.stdin.flush()
        return str(json.loads(self._process.stdout.readline()))

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        self._process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=60)


def _serve(name: str, home: str) -> None:
    from graphdriver.errors import DriverError

    driver = importlib.import_module(f"graphdriver.{name}").Driver(home)
    kept = None  # a diff stays open until the next verb has returned
    for line in sys.stdin:
        verb, *coded = json.loads(line)
        arguments = [
            io.BytesIO(base64.b64decode(one["archive"])) if isinstance(one, dict) else one
            for one in coded
        ]
        try:
            kept = getattr(driver, verb)(*arguments)
            answer = "ok"
        except DriverError as error:
            answer = type(error).__name__
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)
    del kept


if __name__ == "__main__":
    _serve(*sys.argv[1:])
