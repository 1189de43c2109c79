"""Drawing for the report's page: figures as SVG that take their text colour from the page around them."""

from __future__ import annotations

import io
import math
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox, BboxBase

__all__ = ["INK", "STYLE", "WIDTH_INCHES", "new_figure", "place_labels", "text_inches", "to_svg"]

WIDTH_INCHES = 4.1
INK = "#010203"  # stands for the page's text colour until the SVG is written
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfopt",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
LEADER_BEYOND = 12
# Where a label may stand, in points from its mark, nearest first.
OFFSETS = [
    (x * distance, y * distance)
    for distance in (9, 18, 30, 44, 60)
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
]


def new_figure(height_inches: float) -> tuple[Figure, Axes]:
    """A transparent figure of the page's width, with axes that fill it."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.patch.set_alpha(0)
    return figure, axes


def text_inches(text: str) -> float:
    """How wide a label of a bar is; the page's fonts are narrower than matplotlib's."""
    return float(TextPath((0, 0), text, size=10).get_extents().width / 72) if text.strip() else 0.0


def place_labels(
    figure: Figure,
    axes: Axes,
    points: list[tuple[float, float, str]],
    intervals: list[tuple[float, float]] | None = None,
) -> None:
    """Puts each label at the nearest place where it covers no mark, no interval of one, and no other label.

    Args:
        figure: whose axes they are.
        axes: where the marks are.
        points: x, y and label of each mark.
        intervals: from where to where a line is drawn through each mark.
    """
    figure.canvas.draw()
    ends = intervals or [(x, x) for x, _, _ in points]
    taken = []
    for (_, y, _), (low, high) in zip(points, ends, strict=True):
        (x0, y0), (x1, _) = axes.transData.transform([(low, y), (high, y)])
        taken.append(Bbox.from_extents(x0 - 8, y0 - 8, x1 + 8, y0 + 8))
    for x, y, name in points:
        label = axes.annotate(name, (x, y), xytext=OFFSETS[0], textcoords="offset points", parse_math=False)
        taken.append(_settle(label, taken, axes.bbox))
        if math.hypot(*label.get_position()) > LEADER_BEYOND:
            leader = {
                "arrowstyle": "-",
                "color": INK,
                "alpha": 0.5,
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 6,
            }
            axes.annotate(
                "",
                (x, y),
                xytext=label.get_position(),
                textcoords="offset points",
                arrowprops=leader,
                zorder=1,
            )


def _settle(label: Annotation, taken: list[Bbox], frame: BboxBase) -> Bbox:
    """Moves a label to its first free place (or leaves it at the last) and returns what it then covers."""
    for x, y in OFFSETS:
        label.set_position((x, y))
        label.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
        label.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")
        extent = label.get_window_extent()
        inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 and extent.y1 <= frame.y1
        if inside and not any(extent.overlaps(other) for other in taken):
            break
    return Bbox(extent.get_points())


def to_svg(figure: Figure, identity: str, description: str) -> str:
    """The figure as an element of an HTML page.

    Args:
        figure: what to draw.
        identity: what its ids begin with, another one for each figure of a page.
        description: what a screen reader says.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # One page holds several plots: their ids must differ.
    svg = re.sub(r'\bid="', f'id="{identity}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{identity}-", svg)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{_attribute(description)}" ', 1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
