"""Score-against-compute curves as inline SVG: no plotting library, no network, colours from the page's CSS.

Each arm has a colour (CSS class `a0`, `a1` ...), a dash pattern and a marker, so that it can be told apart in print.
"""

import math
from html import escape
from typing import Any

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 104, 12, 44
NAME_HEIGHT, NAME_CHARACTERS = 13, 13
"""Of the arms' names beside the ends of their curves: least distance of two, and how much of one is shown."""
FARTHEST = 0.6
"""Of the width of the curves, how far an arm with its charges may lie beyond them and still be drawn."""
DASHES = ("", "7 4", "2 3", "9 3 2 3", "", "4 4", "1 4", "12 3", "6 2 1 2", "3 6")
COLOURS = 10  # as many as the arms of Table 2 with those it lacks; further ones start over


def plot(metric: dict[str, Any], arms: list[str], own: str | None = None, unit: str = "FLOPs") -> str:
    """One metric's curves: mean over seeds by checkpoint, the band from the worst to the best seed; x logarithmic.

    Beside them stand the arms' names in the order in which the curves end. metric: an entry of the report's `metrics`.
    arms: all of the study; their order gives the colours. own: the arm to draw thick, and again, thinly, with what it
    is charged added to every checkpoint; where that would leave the curves little room, words tell where it lies.
    unit: `FLOPs`, or that of the curves' `hours`; then arms without hours are left out, and nothing is drawn again.
    """
    key = "flops" if unit == "FLOPs" else "hours"
    curves = {arm: line for arm, line in metric["curves"].items() if line[key]}
    moved = curves[own]["charged_flops"] if own in curves and unit == "FLOPs" else None
    places = [value for line in curves.values() for value in line[key]]
    parts = []
    if moved and math.log(max(moved) / max(places)) > FARTHEST * math.log(max(2, max(places) / min(places))):
        told = f"all charged: {moved[0]:.2g} to {moved[-1]:.2g} →".replace("e+", "e")
        parts.append(f'<text class="beyond" x="{WIDTH - 4}" y="{HEIGHT - 6}" text-anchor="end">{told}</text>')
        moved = None
    places += moved or []
    scores = [value for line in curves.values() for key in ("low", "high") for value in line[key]]
    x = _Scale(math.log10(min(places)), math.log10(max(places)), LEFT, WIDTH - RIGHT)
    y = _Scale(min(scores), max(scores), HEIGHT - BOTTOM, TOP)
    parts += _axes(x, y, metric, unit)
    for arm, line in curves.items():
        number = arms.index(arm)
        parts.append(_arm(number, arm, line, x, y, metric["label"], unit, " own" if arm == own else ""))
        if moved and arm == own and moved != line["flops"]:
            points = [(x(math.log10(at)), y(s)) for at, s in zip(moved, line["mean"], strict=True)]
            parts.append(f'<path class="line moved a{number % COLOURS}" d="{_path(points)}"/>')
    parts += _names({arm: y(line["mean"][-1]) for arm, line in curves.items()}, arms, own)
    direction = "higher" if metric["higher_is_better"] else "lower"
    title = f"{metric['task']}, {metric['label']} ({direction} is better) against training {unit}"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def swatch(number: int) -> str:
    """The line and marker of arm `number`, for the legend."""
    dash = f' stroke-dasharray="{DASHES[number % COLOURS]}"' if DASHES[number % COLOURS] else ""
    line = f'<path class="line a{number % COLOURS}" d="M1 6H33"{dash}/>'
    return f'<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true">{line}{_marker(number, 17, 6)}</svg>'


class _Scale:
    """Linear map of [low, high] (widened by 4 %) to pixels."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        pad = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
        self.low, self.high, self.start, self.stop = low - pad, high + pad, start, stop

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def _axes(x: _Scale, y: _Scale, metric: dict[str, Any], unit: str) -> list[str]:
    parts = []
    ticks = _ticks(y.low, y.high, 7)
    digits = max((len(f"{value:g}".partition(".")[2]) for value in ticks), default=0)
    for value in ticks:
        at = y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for value, label in _log_ticks(x.low, x.high):
        at = x(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{label}</text>')
    middle, below = (TOP + HEIGHT - BOTTOM) / 2, (LEFT + WIDTH - RIGHT) / 2
    axis = '<text class="axis" text-anchor="middle"'
    parts.append(f'{axis} x="{below}" y="{HEIGHT - 6}">training {unit} (log scale)</text>')
    turned = f'transform="translate(12 {middle}) rotate(-90)"'
    parts.append(f"{axis} {turned}>{escape(metric['label'])}</text>")
    return parts


def _arm(number: int, arm: str, line: dict[str, Any], x: _Scale, y: _Scale, label: str, unit: str, own: str) -> str:
    places = line["flops" if unit == "FLOPs" else "hours"]
    xs = [x(math.log10(value)) for value in places]
    mean = list(zip(xs, map(y, line["mean"]), strict=True))
    low, high = list(zip(xs, map(y, line["low"]), strict=True)), list(zip(xs, map(y, line["high"]), strict=True))
    style = number % COLOURS
    dash = f' stroke-dasharray="{DASHES[style]}"' if DASHES[style] else ""
    parts = [f'<g data-arm="{escape(arm, quote=True)}">']
    if len(mean) > 1 and low != high:
        parts.append(f'<path class="band a{style}" d="{_path(low + high[::-1])}Z"/>')
    parts.append(f'<path class="line a{style}{own}" d="{_path(mean)}"{dash}/>')
    for (px, py), place, score in zip(mean, places, line["mean"], strict=True):
        title = f"{arm}: {label} {score:.4g} at {place:.3g} {unit}"
        parts.append(_marker(number, px, py, f"<title>{escape(title)}</title>"))
    return "".join([*parts, "</g>"])


def _names(ends: dict[str, float], arms: list[str], own: str | None) -> list[str]:
    """The arms' names with their markers, as near as can be to where their curves end (y by arm), none on another."""
    parts: list[str] = []
    lowest, step = HEIGHT - BOTTOM, min(NAME_HEIGHT, (HEIGHT - BOTTOM - TOP) / max(1, len(ends) - 1))
    places: list[float] = []
    for end in sorted(ends.values()):
        places.append(max(end, places[-1] + step if places else TOP))
    for i in reversed(range(len(places))):  # what was pushed out at the bottom moves up again
        places[i] = min(places[i], places[i + 1] - step if i + 1 < len(places) else lowest)
    for arm, place in zip(sorted(ends, key=ends.__getitem__), places, strict=True):
        shown = arm if len(arm) <= NAME_CHARACTERS else arm[: NAME_CHARACTERS - 1] + "…"
        style = "name own" if arm == own else "name"
        parts.append(_marker(arms.index(arm), WIDTH - RIGHT + 12, place))
        parts.append(f'<text class="{style}" x="{WIDTH - RIGHT + 20}" y="{place + 4:.1f}">{escape(shown)}</text>')
    return parts


def _marker(number: int, x: float, y: float, inside: str = "") -> str:
    """Circle, square, diamond or triangle around (x, y)."""
    shapes = (
        "M{l} {y}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        "M{l} {t}h7v7h-7Z",
        "M{x} {t}l4.6 4.6l-4.6 4.6l-4.6 -4.6Z",
        "M{x} {t}l4.4 7.6h-8.8Z",
    )
    shape = number % len(shapes)
    half = (4, 3.5, 4.6, 4.4)[shape]
    top = y - (4, 3.5, 4.6, 4.6)[shape]
    path = shapes[shape].format(x=f"{x:.1f}", y=f"{y:.1f}", l=f"{x - half:.1f}", t=f"{top:.1f}")
    return f'<path class="dot a{number % COLOURS}" d="{path}">{inside}</path>'


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round values inside [low, high], a 1-2-5 step apart."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """(log10, label) of values inside: every digit within a factor of 3, 1-2-5 within 40, else powers of ten."""
    factors = range(1, 10) if high - low < 0.45 else (1, 2, 5) if high - low < 1.6 else (1,)
    every = max(1, round((high - low) / 6))
    found = []
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        for factor in factors:
            at = exponent + math.log10(factor)
            if low <= at <= high and exponent % every == 0:
                label = f"{factor * 10.0**exponent:g}" if -3 <= exponent <= 3 else f"{factor}e{exponent}"
                found.append((at, label))
    return (
        found if len(found) > 1 else [(value, f"{10**value:.2g}".replace("e+", "e")) for value in _ticks(low, high, 3)]
    )
