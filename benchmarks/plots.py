"""
Draws log-log plots as SVG, in the colours of a light or a dark page, as the reader's browser has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10
from typing import NamedTuple
from xml.sax.saxutils import escape

_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 13px; }
  .frame { fill: none; stroke: #8c959f; }
  .grid { stroke: #8c959f; stroke-opacity: 0.25; }
  .line { fill: none; stroke-width: 2; }
  .dashed { stroke-dasharray: 5 4; }
  .c0 { stroke: #0969da; } .f0 { fill: #0969da; }
  .c1 { stroke: #bc4c00; } .f1 { fill: #bc4c00; }
  .c2 { stroke: #1a7f37; } .f2 { fill: #1a7f37; }
  .c3 { stroke: #6e7781; } .f3 { fill: #6e7781; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .c0 { stroke: #58a6ff; } .f0 { fill: #58a6ff; }
    .c1 { stroke: #f0883e; } .f1 { fill: #f0883e; }
    .c2 { stroke: #56d364; } .f2 { fill: #56d364; }
    .c3 { stroke: #9da7b1; } .f3 { fill: #9da7b1; }
  }
"""
_WIDTH, _HEIGHT = 400, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 34, 44
_LEGEND = 30


class Line(NamedTuple):
    """
    A line of a plot.

    @ivar points: x and y, both more than 0.
    @ivar dashed: it is there to compare others with.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


class Plot(NamedTuple):
    """
    One plot.
    """

    title: str
    x: str
    lines: Sequence[Line]


def draw(plots: Sequence[Plot], columns: int = 2) -> str:
    """
    All plots as one picture, with one legend: lines of the same name have the same colour.
    """
    names: dict[str, bool] = {}
    for plot in plots:
        names.update((line.name, line.dashed) for line in plot.lines)
    colours = {name: number for number, name in enumerate(names)}
    rows = ceil(len(plots) / columns)
    width, height = columns * _WIDTH, rows * _HEIGHT + _LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img">',
        f"<style>{_STYLE}</style>",
        _legend(names, colours),
    ]
    for number, plot in enumerate(plots):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT + _LEGEND
        parts.append(f'<g transform="translate({x} {y})">{_plot(plot, colours)}</g>')
    return "\n".join((*parts, "</svg>", ""))


def _legend(names: Mapping[str, bool], colours: Mapping[str, int]) -> str:
    parts, x = [], _LEFT
    for name, dashed in names.items():
        parts.append(
            f'<path class="line c{colours[name]}{" dashed" if dashed else ""}" d="M{x} 16h28"/>'
            f'<text x="{x + 34}" y="20">{escape(name)}</text>'
        )
        x += 50 + 7 * len(name)
    return "".join(parts)


def _plot(plot: Plot, colours: Mapping[str, int]) -> str:
    points = [point for line in plot.lines for point in line.points]
    left, right = log10(min(x for x, _ in points)), log10(max(x for x, _ in points))
    low, high = floor(log10(min(y for _, y in points))), ceil(log10(max(y for _, y in points)))
    high = max(high, low + 1)
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (log10(x) - left) / ((right - left) or 1.0) * inner_width,
            _TOP + (high - log10(y)) / (high - low) * inner_height,
        )

    parts = [f'<text class="title" x="{_LEFT}" y="22">{escape(plot.title)}</text>']
    for power in range(low, high + 1):
        _, y = at(10**left, 10**power)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}h{inner_width}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(10**power)}</text>')
    for value in sorted({x for x, _ in points}):
        x, _ = at(value, 10**low)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}v{inner_height}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP + inner_height + 16}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{inner_width}" height="{inner_height}"/>')
    middle = _LEFT + inner_width / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(plot.x)}</text>')
    for line in plot.lines:
        colour = colours[line.name]
        places = [at(x, y) for x, y in sorted(line.points)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line c{colour}{" dashed" if line.dashed else ""}" d="M{path}"/>')
        if not line.dashed:
            parts += [f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
