"""Charts as SVG text: lines and points with intervals, colours by the style sheet of the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeGuard

__all__ = ["Axis", "Line", "Point", "captioned", "chart"]

WIDTH, HEIGHT = 660, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 46
STYLES = 8  # colours of the style sheet; then dashes and shapes change
DASHES = ("solid", "long", "short")
SHAPES = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
    "M-3.2 -3.2h6.4v6.4h-6.4z",
    "M0 -4.2l4 7h-8z",
)
CROSS = "M-4 -1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z"
BASE_SHAPES = ("M0 -4.8L4.8 0L0 4.8L-4.8 0z", CROSS)
MARGIN = 0.04  # of an axis, beyond its values
FEWEST_TICKS = 3
NEAR = 0.7  # of the width: names of points beyond stand to their left


@dataclass(frozen=True)
class Point:
    """One value with its interval, and what is told of it under the pointer."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Line:
    """Points of one name; baselines have a `style` below 0; `is_named`: its name stands beside."""

    name: str
    style: int
    points: tuple[Point, ...] = ()
    is_named: bool = False

    @property
    def classes(self) -> str:
        """Its classes in the style sheet."""
        if self.style < 0:
            return "base"
        return f"c{self.style % STYLES} d{self.style // STYLES % len(DASHES)}"

    @property
    def shape(self) -> str:
        """The outline of its points, around 0 0."""
        if self.style < 0:
            return BASE_SHAPES[-self.style % len(BASE_SHAPES)]
        return SHAPES[self.style // STYLES % len(SHAPES)]

    @property
    def key(self) -> str:
        """Its entry in a legend."""
        mark = f'<svg viewBox="-6 -6 12 12"><path class="dot" d="{self.shape}"/></svg>'
        return f'<li class="{self.classes}">{mark}{escape(self.name)}</li>'


@dataclass(frozen=True)
class Axis:
    """One axis: its label, whether it is logarithmic, ticks if given, and where it ends if cut."""

    label: str
    is_log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    end: float | None = None

    def scale(self, values: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
        """Map of values to pixels."""
        low, high = (self._at(one) for one in self._range(values))
        margin = MARGIN * (high - low)
        low, high = low - margin, high + margin

        def place(value: float) -> float:
            return round(start + (self._at(value) - low) / (high - low) * (stop - start), 1)

        return place

    def marks(self, values: Sequence[float]) -> tuple[tuple[float, str], ...]:
        """Where ticks stand, and their texts."""
        if self.ticks:
            return self.ticks
        low, high = self._range(values)
        found = _log_ticks(low, high) if self.is_log else []
        found = found if len(found) >= FEWEST_TICKS else _ticks(low, high)
        return tuple((one, f"{one:.6g}") for one in found)

    def _range(self, values: Sequence[float]) -> tuple[float, float]:
        low = min(values)
        high = max(values) if self.end is None else max(low, self.end)
        if low == high:
            return (low / 1.5, high * 1.5) if self.is_log else (low - 0.5, high + 0.5)
        return low, high

    def _at(self, value: float) -> float:
        return math.log(value) if self.is_log else value


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in a range."""
    step: float = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(one for one in (1, 2, 5, 10) if (high - low) / (one * step) <= 6)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = [digit * 10**power for power in powers for digit in (1, 2, 5)]
    return [one for one in ticks if low <= one <= high]


def chart(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    title: str,
    is_joined: bool = True,
    mark: tuple[float, str] | None = None,
) -> str:
    """Draw lines, or points alone, with intervals; points beyond the end of y lie on the edge.

    Args:
        lines: what to draw; points that are not finite are left out.
        x: the axis to the right.
        y: the axis upwards.
        title: what the chart says, for those who cannot see it.
        is_joined: whether the points of a line are joined.
        mark: a place on x and its name.
    """
    points = [one for line in lines for one in line.points if _is_drawn(one)]
    if not points:
        return ""
    ends = [end for one in points for end in (one.low, one.high, one.y) if _is_number(end)]
    place_x = x.scale([one.x for one in points], LEFT, WIDTH - RIGHT)
    place_y = y.scale(ends, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_frame(x, y, [one.x for one in points], ends, place_x, place_y),
    ]
    if mark and _inside(place_x(mark[0])):
        at = place_x(mark[0])
        parts.append(f'<path class="mark" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>')
        at, end = _beside(at)
        parts.append(f'<text class="note{end}" x="{at}" y="{TOP + 12}">{escape(mark[1])}</text>')
    for line in lines:
        parts += _draw(line, place_x, lambda value: max(TOP, place_y(value)), is_joined)
    return "\n".join([*parts, "</svg>"])


def _frame(
    x: Axis,
    y: Axis,
    x_values: Sequence[float],
    y_values: Sequence[float],
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
) -> list[str]:
    """Grid, ticks and labels."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, text in y.marks(y_values):
        if TOP <= (at := place_y(value)) <= bottom:
            parts.append(f'<path class="grid" d="M{LEFT} {at}H{right}"/>')
            parts.append(
                f'<text class="tick end" x="{LEFT - 6}" y="{at + 4}">{escape(text)}</text>'
            )
    for value, text in x.marks(x_values):
        if _inside(at := place_x(value)):
            parts.append(f'<path class="grid" d="M{at} {TOP}V{bottom}"/>')
            parts.append(f'<text class="tick mid" x="{at}" y="{bottom + 17}">{escape(text)}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="mid" x="{middle}" y="{HEIGHT - 8}">{escape(x.label)}</text>')
    at = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {at})"'
    parts.append(f'<text class="mid" x="14" y="{at}" {turned}>{escape(y.label)}</text>')
    return parts


def _draw(
    line: Line, x: Callable[[float], float], y: Callable[[float], float], is_joined: bool
) -> list[str]:
    drawn = [one for one in line.points if _is_drawn(one)]
    parts = [f'<g class="{line.classes}">']
    if is_joined and len(drawn) > 1:
        path = "L".join(f"{x(one.x)} {y(one.y)}" for one in drawn)
        parts.append(f'<path class="line" d="M{path}"/>')
    for one in drawn:
        if _is_number(one.low) and _is_number(one.high):
            parts.append(f'<path class="bar" d="M{x(one.x)} {y(one.low)}V{y(one.high)}"/>')
        told = f"<title>{escape(one.text or line.name)}</title>"
        moved = f'transform="translate({x(one.x)} {y(one.y)})"'
        parts.append(f'<path class="dot" {moved} d="{line.shape}">{told}</path>')
    if drawn and line.is_named:
        at, height = x(drawn[-1].x), y(drawn[-1].y)
        at, end = _beside(at)
        side = f'class="name{end}" x="{at}"'
        parts.append(f'<text {side} y="{height + 4}">{escape(line.name)}</text>')
    return [*parts, "</g>"]


def _beside(at: float) -> tuple[float, str]:
    """Where a text beside a place stands, and its class, so that it stays inside."""
    return (at - 7, " end") if at > WIDTH * NEAR else (at + 7, "")


def _inside(at: float) -> bool:
    return LEFT <= at <= WIDTH - RIGHT


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _is_drawn(point: Point) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y)


def captioned(caption: str, drawn: str, note: str = "") -> str:
    """An HTML figure of something drawn, with its caption and a note below; nothing of nothing."""
    if not drawn:
        return ""
    below = f"<small>{escape(note)}</small>" if note else ""
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><div class="wide">{drawn}</div>'
        f"{below}</figure>"
    )
