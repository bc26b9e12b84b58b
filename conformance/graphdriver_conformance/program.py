"""The calls that a test made, written down: the program that a violation is shown with."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphdriver_conformance.oracle.tree import Node, NodeKind, Tree

__all__ = ["Program", "Step", "shown_call", "shown_edits", "shown_result"]

# A test may make a thousand layers: its program shows how it began and how it ended.
_MOST_LINES = 40
_MOST_EDITS = 8
_LONGEST_VALUE = 60


@dataclass(slots=True)
class Step:
    """A line of the program, with what came of it and the edits made in a view."""

    text: str
    came: str = ""
    edits: list[str] = field(default_factory=list)
    folded: bool = False


class Program:
    """The steps since the example began."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def call(self, verb: str, arguments: Sequence[object]) -> Step:
        """Write down a call that is about to be made."""
        return self.line(shown_call(verb, arguments))

    def line(self, text: str) -> Step:
        """Write down something else that happens."""
        step = Step(text)
        self.steps.append(step)
        return step

    @contextmanager
    def folded(self, text: str) -> Iterator[Step]:
        """Show what the block does as one line; if it fails, its calls as well."""
        step = self.line(text)
        first = len(self.steps)
        yield step
        for inner in self.steps[first:]:
            inner.folded = True

    def clear(self) -> None:
        """Forget all: another example begins."""
        self.steps.clear()

    def lines(self) -> list[str]:
        """Return it for a reader: long runs of one verb, and the middle of long programs, cut."""
        shown: list[str] = []
        steps = (step for step in self.steps if not step.folded)
        for _, group in itertools.groupby(steps, key=lambda step: step.text.partition("(")[0]):
            run = list(group)
            if len(run) <= 6:
                kept, cut = run, 0
            else:
                kept, cut = [run[0], run[1], run[-1]], len(run) - 3
            for number, step in enumerate(kept):
                if cut and number == 2:
                    shown.append(f"... {cut} more calls of {step.text.partition('(')[0]}")
                shown.append(step.text + (f"  # {step.came}" if step.came else ""))
                shown += [f"    {edit}" for edit in step.edits]
        if len(shown) > _MOST_LINES:
            left = len(shown) - _MOST_LINES
            half = _MOST_LINES // 2
            shown[half:-half] = [f"... {left} more lines"]
        return shown


def shown_call(verb: str, arguments: Sequence[object]) -> str:
    """Return a call as Python has it, arguments that are left at their defaults left out."""
    texts = [_shown_argument(one) for one in arguments]
    while len(texts) > 1 and texts[-1] in ("''", "None"):
        texts.pop()
    return f"{verb}({', '.join(texts)})"


def shown_result(result: Any) -> str:
    """Return what came of a call where a reader can use it: a word or a number, no objects."""
    if result is None or hasattr(result, "read") or hasattr(result, "__fspath__"):
        return ""
    text = str(result) if not isinstance(result, (str, bytes)) else repr(result)
    if isinstance(result, list):
        text = f"[{', '.join(str(one) for one in result[:6])}{', ...' * (len(result) > 6)}]"
    return text if len(text) <= 2 * _LONGEST_VALUE else ""


def shown_edits(old: Tree, new: Tree) -> list[str]:
    """Return what a program in the layer's view does to make `new` of `old`."""
    gone = [name for name in sorted(old) if name not in new]
    edits = [f"rm -r {_name(one)}" for one in gone if one.rpartition(b"/")[0] not in gone]
    for name in sorted(new):
        if name in old and old[name].but(mtime=0) == new[name].but(mtime=0):
            continue  # times are set on everything, and tell nothing
        edits.append(_made(name, new[name], name in old and old[name].kind is new[name].kind))
    cut = len(edits) - _MOST_EDITS
    return edits if cut <= 0 else [*edits[:_MOST_EDITS], f"... and {cut} more edits"]


def _made(name: bytes, node: Node, was_there: bool) -> str:
    shown = _name(name)
    owner = f" {node.uid}:{node.gid}" if (node.uid, node.gid) != (0, 0) else ""
    if node.kind is NodeKind.SYMLINK:
        return f"ln -s {_name(node.target, '')} {shown}{owner}"
    metadata = f"mode {node.mode:o}{owner}"
    if node.xattrs:
        metadata += f", attributes {', '.join(sorted(name for name, _ in node.xattrs))}"
    if node.is_directory:
        return f"{'change' if was_there else 'mkdir'} {shown}  {metadata}"
    if node.kind is NodeKind.FILE:
        linked = f", one file with {_name(node.link)}" if node.link and node.link != name else ""
        return f"write {shown}  {_short(node.content)}, {metadata}{linked}"
    return f"mknod {shown}  {node.kind.value}, {metadata}"


def _shown_argument(argument: object) -> str:
    if hasattr(argument, "read"):
        return "<archive>"
    return _short(argument)


def _short(value: object) -> str:
    text = repr(value)
    if len(text) <= _LONGEST_VALUE:
        return text
    size = f" ({len(value)} long)" if isinstance(value, (str, bytes)) else ""
    return f"{text[: _LONGEST_VALUE // 2]}...{size}"


def _name(raw: bytes, root: str = "/") -> str:
    return root + raw.decode("utf-8", "backslashreplace")
