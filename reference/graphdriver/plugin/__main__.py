"""`python -m graphdriver.plugin overlay2 --socket PATH [--home DIR]`.

SIGTERM stops it: running calls end, the socket is removed, layers and mounts stay for the next
process, which reads the last Init from PATH.init.
"""

import argparse
import importlib
import importlib.metadata
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from graphdriver.contract import DriverFactory
from graphdriver.errors import DriverError
from graphdriver.plugin.calls import BadRequest, Calls
from graphdriver.plugin.memory import Memory
from graphdriver.plugin.server import PluginServer


def main() -> int:
    """Serve until SIGTERM or SIGINT; return 0, or 2 when it cannot start."""
    options = _parse()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        factory = _factory(options.driver)
        memory = Memory(options.socket.with_name(f"{options.socket.name}.init"), options.driver)
        calls = Calls(factory, str(options.home or ""), memory)
        server = PluginServer(options.socket, calls)
        _restore(calls)
    except (OSError, LookupError, ImportError, AttributeError) as error:
        print(f"graphdriver serve: {error}", file=sys.stderr)
        return 2
    # shutdown() waits for serve_forever to end, so the handler must not run it in this thread.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    logging.info("%s listens on %s", options.driver, options.socket)
    with server:
        server.serve_forever(poll_interval=0.1)
    return 0


def _restore(calls: Calls) -> None:
    """Create the driver of the previous process again; without a stored Init wait for one."""
    try:
        calls.remember()
    except (DriverError, OSError, BadRequest) as error:
        logging.warning("the last Init failed this time: %s", error)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "graphdriver serve", description="Serve a driver as a Docker graphdriver plugin."
    )
    parser.add_argument("driver", help="a name (overlay2, vfs) or module:attribute")
    parser.add_argument(
        "--socket",
        type=Path,
        default=os.environ.get("GRAPHDRIVER_SOCKET"),
        help="where to listen; default $GRAPHDRIVER_SOCKET",
    )
    parser.add_argument("--home", type=Path, help="use this home, whatever Docker sends")
    options = parser.parse_args()
    if not options.socket:
        parser.error("--socket is missing, and GRAPHDRIVER_SOCKET is not set")
    return options


def _factory(spec: str) -> DriverFactory:
    module, colon, attribute = spec.partition(":")
    if colon:
        sys.path.insert(0, os.getcwd())
        found: DriverFactory = getattr(importlib.import_module(module), attribute)
        return found
    points = importlib.metadata.entry_points(group="graphdriver.drivers")
    if spec not in points.names:
        raise LookupError(f"no driver {spec!r}; there are {', '.join(sorted(points.names))}")
    loaded: DriverFactory = points[spec].load()
    return loaded


if __name__ == "__main__":
    sys.exit(main())
