"""Small pictures inside a page: inline SVG in the page's own colours, so that they follow light and dark."""

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 150, 56  # of a panel of curves, in CSS pixels before it is scaled
MARGIN = 3  # so that a line at the edge is drawn whole

Curve = Sequence[tuple[float, float]]  # (x, y)


def interval(value: float, low: float | None, high: float | None, reach: float) -> Markup:
    """A difference as a dot on an axis from ``-reach`` to ``reach`` with a tick at 0, and its interval as a bar.

    What lies outside is cut off at the edge. Without an interval there is only the dot.
    """

    def at(x: float) -> str:
        share = (max(-reach, min(reach, x)) / reach + 1) / 2
        return f"{MARGIN + share * (WIDTH - 2 * MARGIN):.1f}"

    bar = "" if low is None or high is None else f'<line class="range" x1="{at(low)}" x2="{at(high)}" y1="9" y2="9"/>'
    return Markup(
        f'<svg class="interval" viewBox="0 0 {WIDTH} 18" aria-hidden="true">'
        f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="1" y2="17"/>{bar}'
        f'<circle cx="{at(value)}" cy="9" r="4"/></svg>'
    )


def lines(curves: Sequence[Curve], until: float, logarithmic: bool = False) -> Markup:
    """Curves over x from 0 to ``until``, one faint line each, between their smallest and largest finite y.

    On a logarithmic axis values of 0 or less are left out. Nothing to draw gives an empty string.
    """
    scale = math.log10 if logarithmic else float
    kept = [[(x, scale(y)) for x, y in curve if math.isfinite(y) and (y > 0 or not logarithmic)] for curve in curves]
    values = [y for curve in kept for _, y in curve]
    if not values:
        return Markup("")
    low, high = min(values), max(values)

    def point(x: float, y: float) -> str:
        across = MARGIN + x / until * (WIDTH - 2 * MARGIN)
        share = (y - low) / (high - low) if high > low else 0.5
        return f"{across:.1f},{HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN):.1f}"

    drawn = "".join(f'<polyline points="{" ".join(point(x, y) for x, y in curve)}"/>' for curve in kept if curve)
    return Markup(f'<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{drawn}</svg>')
