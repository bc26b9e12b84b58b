"""The same fault with strace(1), to reproduce it without the suite."""

import shlex

from graphdriver_conformance.faults.calls import without_random_names
from graphdriver_conformance.faults.supervisor import Watched

__all__ = ["strace_line"]


def strace_line(watched: Watched, inject: str) -> str:
    """Return the options of strace that cause the fault at the call, "" if there are none.

    strace counts calls by name and thread, so it can only identify a call that is the first of its
    name at its path; a path with a random part is not known in advance.
    """
    hit = watched.hit
    if hit is None or not hit.places:
        return ""
    path = hit.places[-1].decode("utf-8", "backslashreplace")
    alike = [one for one in watched.calls if one.name == hit.name and hit.places[-1] in one.places]
    if len(alike) != 1 or without_random_names(path) != path:
        return ""
    where = ["-P", path, "-e", f"trace={hit.name}"]
    return shlex.join(["strace", "-f", *where, "-e", f"inject={hit.name}:{inject}:when=1"])
