"""Draw the medians as horizontal bars: SVG without anything to load."""

from collections.abc import Sequence
from html import escape

from benchmarks.contest import Contest

__all__ = ["draw"]

_WIDTH, _BAR, _GAP, _LABEL = 760, 18, 6, 190
_COLOURS = {
    "overlay2": "#2a6fdb",
    "tar": "#8a8f98",
    "tarfile": "#c9ccd1",
    "containers-storage": "#d08c2f",
}


def draw(contests: Sequence[Contest]) -> str:
    """Return an SVG with one group of bars for each contest that has more than one contestant."""
    parts: list[str] = []
    top = 8
    for contest in (one for one in contests if len(one.timings) > 1):
        longest = max(timing.median for timing in contest.timings)
        parts.append(
            f'<text x="8" y="{top + 14}" font-weight="bold">{escape(contest.title)}</text>'
        )
        top += 24
        for timing in contest.timings:
            length = max(2, round((_WIDTH - _LABEL - 90) * timing.median / longest))
            colour = _COLOURS.get(timing.name, "#555")
            name, figure = escape(timing.name), f"{timing.median * 1000:,.0f} ms"
            parts += (
                f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{name}</text>',
                f'<rect x="{_LABEL}" y="{top}" width="{length}" height="{_BAR}" fill="{colour}"/>',
                f'<text x="{_LABEL + length + 6}" y="{top + 14}">{figure}</text>',
            )
            top += _BAR + _GAP
        top += 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" '
        'font-family="system-ui, sans-serif" font-size="13">'
        f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
