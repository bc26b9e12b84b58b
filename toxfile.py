"""Which interpreters tox uses: those on PATH, and those of pyenv, which PATH does not have.

tox reads this file by itself. The newest interpreter runs all tests (`tests` in tox.ini), every
other one a smaller set (`others-py3*`, as many as there are). Without pyenv, PATH alone counts.
"""

import os
import re
import shutil
from pathlib import Path

_SUPPORTED = range(11, 15)  # the minor versions of Python 3 that pyproject.toml names
_PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


def _found() -> dict[int, str]:
    """Return an interpreter for each minor version; the one on PATH where there are several."""
    found: dict[int, str] = {}
    for program in sorted(_PYENV.glob("versions/3.*/bin/python")):
        version = re.match(r"3\.(\d+)\.\d+$", program.parents[1].name)
        if version:
            found[int(version[1])] = str(program)
    for minor in _SUPPORTED:
        program_on_path = shutil.which(f"python3.{minor}")
        # pyenv's shims are on PATH for every version, also for those that it would refuse to run.
        if program_on_path and _PYENV not in Path(program_on_path).parents:
            found[minor] = program_on_path
    return {minor: program for minor, program in found.items() if minor in _SUPPORTED}


_INTERPRETERS = _found()
if _INTERPRETERS:
    _OTHERS = sorted(_INTERPRETERS, reverse=True)[1:]
    os.environ.setdefault("TOX_DISCOVER", os.pathsep.join(_INTERPRETERS.values()))
    os.environ.setdefault("TOX_OTHERS", ",".join(f"others-py3{minor}" for minor in _OTHERS))
