"""`python -m graphdriver_vms`: the implementation of `graphdriver matrix`."""

import os
import signal
import sys

from graphdriver_vms.cli import main


def _main() -> int:
    """Run the command; a closed pipe, as in `... list | head`, is not an error."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is not None:
            raise  # another file than standard output, which has no name here
        print(f"graphdriver matrix: standard output: {error.strerror}", file=sys.stderr)
        code = 2
    # The interpreter flushes again when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


sys.exit(_main())
