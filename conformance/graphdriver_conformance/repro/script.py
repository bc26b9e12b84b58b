"""A recorded program as a self-contained script."""

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib.resources import files
from typing import Any

from graphdriver_conformance.catalogue.requirement import Requirement
from graphdriver_conformance.faults.findings import Where
from graphdriver_conformance.repro.recorder import RecordedCall
from graphdriver_conformance.repro.replay import RAISES
from graphdriver_conformance.results.model import RequirementResult

__all__ = ["Check", "check_script", "script"]

_USAGE = "python THIS [SPEC]: exits 1 when it reproduces, 0 when not."
_SHORT = 160
# Verbs whose answers contain no information.
_UNOBSERVED_VERBS = frozenset(
    {"status", "cleanup", "put", "create", "create_read_write", "remove", "init", "start", "umask"}
)
_OWN_IMPORT = re.compile(
    r"^from graphdriver_conformance\S* import (?:\([^)]*\)|.*)\n", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Check:
    """A test of the suite as MODULE:NAME, the indices of its arguments in its marks, and its
    setting.

    `docstring` is the docstring of the test; `fault` caused the violation, if the test tests
    several.
    """

    name: str
    docstring: str
    arguments: Mapping[str, int]
    options: tuple[str, ...]
    profile: str
    seed: int
    fault: Where | None = None


def script(
    requirement: Requirement, spec: str, steps: Sequence[RecordedCall], result: RequirementResult
) -> str:
    """Return the text of a script that replays `steps`, which violated the requirement."""
    expected, actual = result.expected or "", result.actual or ""
    lines = [line for step in steps for line in _lines(step)]
    return "\n".join(
        [
            _head(requirement, result, f"{_USAGE} Needs the driver, and nothing else.\n"),
            *map(_pasted, ("observe.py", "replay.py")),
            "",
            "",
            "def program(run):",
            f"    {_docstring('The calls of the test, and their results.')}",
            *(f"    {line}" for line in lines),
            "",
            "",
            'if __name__ == "__main__":',
            f"    sys.exit(main({spec!r}, program, {expected!r}, {actual!r}))",
            "",
        ]
    )


def check_script(
    requirement: Requirement, spec: str, check: Check, result: RequirementResult
) -> str:
    """Return the text of a script that calls the test, if verbs alone do not reproduce the
    violation.
    """
    given = {"options": check.options, "profile": check.profile, "seed": check.seed}
    if check.fault:
        given["fault"] = astuple(check.fault)
    values = [repr(one) for one in (spec, requirement.id, check.name, dict(check.arguments))]
    values += [f"{key}={value!r}" for key, value in given.items()]
    what = f"{check.name}\n{check.docstring.strip()}"
    return "\n".join(
        [
            _head(
                requirement,
                result,
                f"Verbs alone do not show it, so this calls the check, without pytest:\n{what}\n\n"
                f"{_USAGE} Needs the suite.\n",
            ),
            "",
            "import sys",
            "",
            "from graphdriver_conformance.repro.rerun import main",
            "",
            "sys.exit(",
            "    main(",
            *(f"        {value}," for value in values),
            "    )",
            ")",
            "",
        ]
    )


def _head(requirement: Requirement, result: RequirementResult, text: str) -> str:
    return "#!/usr/bin/env python3\n" + _docstring(
        f"{requirement.id} ({requirement.level}): {requirement.title}\n\n"
        f"expected: {result.expected}\nactual:   {result.actual}\n\n{text}"
    )


def _pasted(module: str) -> str:
    """Return a module's source without its docstring and without imports of this package."""
    text = files("graphdriver_conformance.repro").joinpath(module).read_text("utf-8")
    body = text.split('"""\n', 1)[1]
    return _OWN_IMPORT.sub("", body).rstrip() + "\n"


def _lines(step: RecordedCall) -> list[str]:
    if step.verb == "edit":
        lines = [f"run.edit({step.arguments[0]!r},"]
        return [*lines, *(f"         {_edit(*one)}," for one in step.edits), ")"]
    named = f", driver={step.driver}" if step.driver else ""
    if step.verb == "init":
        texts = [f"{key}={value!r}" for key, value in step.arguments]
    else:
        texts = [_value(one) for one in step.arguments]
        while len(texts) > 1 and texts[-1] in ("''", "None"):
            texts.pop()
    if step.observed == RAISES:
        texts.append("observed=RAISES")
    elif step.verb not in _UNOBSERVED_VERBS:
        texts.append(f"observed={step.observed!r}")
    return [f"run.{step.verb}({', '.join(texts)}{named})"]


def _edit(name: str, arguments: Sequence[Any], metadata: dict[str, Any]) -> str:
    texts = [_value(one) for one in arguments]
    texts += [
        f"{key}={oct(value) if key == 'mode' else repr(value)}" for key, value in metadata.items()
    ]
    return f"{name}({', '.join(texts)})"


def _value(value: Any) -> str:
    """Return a literal; long bytes compressed, as base64."""
    if isinstance(value, bytes) and len(value) > _SHORT:
        return f'blob("{base64.b64encode(zlib.compress(value, 9)).decode()}")'
    return repr(value)


def _docstring(text: str) -> str:
    safe = text.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\")
    return '"""' + safe.replace('"""', "'''") + '"""'
