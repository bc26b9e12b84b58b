"""Charts as self-contained SVG: bars for a row, lines for an axis."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks.comparison import Row
from benchmarks.result import Axis

__all__ = ["bars", "lines", "milliseconds"]

_WIDTH, _BAR, _GAP, _LABEL = 760, 18, 6, 230
_PALETTE = ("#2a6fdb", "#8fb4ee", "#d0562f", "#d08c2f", "#3f8f5f", "#8a8f98", "#8457b0", "#c9ccd1")
_COLOURS = {
    "overlay2": "#2a6fdb",
    "overlay2, nothing synced": "#8fb4ee",
    "overlay2 through its socket": "#8fb4ee",
    "overlay2.sync=true": "#2a6fdb",
    "Docker": "#d0562f",
    "containerd": "#3f8f5f",
    "containers-storage": "#d08c2f",
    "GNU tar": "#8a8f98",
    "tar and sync -f": "#8a8f98",
    "tarfile": "#c9ccd1",
}
_PLOT, _LEFT, _TOP = (470, 220), 64, 34


def bars(rows: Sequence[Row]) -> str:
    """Return one group of bars for each row with more than one candidate."""
    parts: list[str] = []
    top = 8
    for row in (one for one in rows if len(one.seconds) > 1):
        medians = {name: row.median(name) or 0.0 for name in row.seconds}
        longest = max(medians.values())
        parts.append(_text(8, top + 14, row.title, weight="bold"))
        top += 24
        for name, median in medians.items():
            length = max(2, round((_WIDTH - _LABEL - 90) * median / longest))
            colour = _COLOURS.get(name, "#555")
            parts += (
                _text(_LABEL - 8, top + 14, name, anchor="end"),
                f'<rect x="{_LABEL}" y="{top}" width="{length}" height="{_BAR}" fill="{colour}"/>',
                _text(_LABEL + length + 6, top + 14, milliseconds(median)),
            )
            top += _BAR + _GAP
        top += 14
    return _svg(_WIDTH, top, parts)


def lines(axis: Axis) -> str:
    """Return lines on two logarithmic scales: constant cost is a horizontal line."""
    times = [time for line in axis.lines.values() for time in line]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    width, height = _PLOT
    first, last = math.log10(axis.points[0]), math.log10(axis.points[-1])

    def place(point: float, time: float) -> tuple[float, float]:
        x = _LEFT + width * (math.log10(point) - first) / ((last - first) or 1)
        y = _TOP + height * (1 - (math.log10(time) - low) / ((high - low) or 1))
        return round(x, 1), round(y, 1)

    parts = [_text(8, 18, axis.title, weight="bold")]
    for power in range(low, high + 1):
        x, y = place(axis.points[0], 10.0**power)
        parts.append(f'<path d="M{x} {y}h{width}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, milliseconds(10.0**power), anchor="end"))
    for point in axis.points:
        x, _ = place(point, 10.0**low)
        parts.append(_text(x, _TOP + height + 18, f"{point:,}", anchor="middle"))
    parts.append(_text(_LEFT + width / 2, _TOP + height + 36, axis.unit, anchor="middle"))
    for number, (name, line) in enumerate(axis.lines.items()):
        colour = _PALETTE[number % len(_PALETTE)]
        at = [place(point, time) for point, time in zip(axis.points, line, strict=True)]
        path = "L".join(f"{x} {y}" for x, y in at)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in at]
        y = _TOP + 20 * number + 8
        parts.append(f'<path d="M{_LEFT + width + 16} {y}h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(_LEFT + width + 38, y + 4, name))
    return _svg(_WIDTH + 60, _TOP + height + 46, parts)


def milliseconds(seconds: float) -> str:
    """Return a time with two or three significant digits."""
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.3g} ms"


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(text)}</text>"


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
