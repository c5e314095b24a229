"""Matplotlib figures as inline SVG that takes its colours and its font from the page.

Every colour of a figure that has to change with the page's scheme is a token, a colour that nobody would choose; in the
SVG it becomes a CSS variable, so that one drawing serves light and dark. Text stays text.
"""

from __future__ import annotations

import html
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, FAINT = "#010203", "#010204", "#010205"
"""Text and axes; secondary lines; the grid."""

FIRST, SECOND = "#010206", "#010207"
"""The two colours of data: what is held out or q, and what is trained on or p."""

TOKENS = {INK: "ink", MUTED: "muted", FAINT: "line", FIRST: "first", SECOND: "second"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "otkit_vae",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many inches with one pair of axes, in the style of the report."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure, figure.subplots()


def to_svg(figure: Figure, alt: str) -> Markup:
    """The SVG element of a figure, with the text that stands for it where it cannot be seen."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    for token, name in TOKENS.items():
        text = text.replace(token, f"var(--{name})")
    # Several figures in one page, whose identifiers would be the same.
    own = f"f{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{own}", text)
    label = html.escape(alt, quote=True)
    return Markup(re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', text, count=1))
