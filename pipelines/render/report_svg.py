"""Figures as SVG that takes its colours from the page around it, so that they follow its theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from retrieval.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = 8
"""How many colours of systems the page defines: ``--s0`` to ``--s7``."""

# Colours that matplotlib writes and the page replaces.
INK, FAINT, GAIN, LOSS = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "--ink", FAINT: "--faint", GAIN: "--gain", LOSS: "--loss"}
_SERIES = tuple(f"#0a0a{number:02x}" for number in range(SERIES))
_VARIABLES |= {colour: f"--s{number}" for number, colour in enumerate(_SERIES)}
_WIDTH = 7.6
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and it can be searched
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
}
_DECORATION = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)


def require_plotting() -> None:
    """Load what reports are made with, before anything is measured.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "matplotlib", "report", "a report in HTML") from error


def series(number: int) -> str:
    """Colour of a system, by its position."""
    return _SERIES[number % SERIES]


def svg_of(draw: Callable[[Figure], None], height: float, title: str, salt: str) -> str:
    """Draw a figure.

    Args:
        draw: Fills it.
        height: In inches; the page scales it to its width.
        title: For those who do not see it.
        salt: A text that no other plot of the page has, from which its ids are made.

    Returns:
        An ``<svg>`` element.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_plotting()
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The salt makes ids that are the same in every run and different for every plot of a page.
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": salt}), io.StringIO() as file:
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue()
    text = _DECORATION.sub("", text)
    text = re.sub(r'<g id="[\w.]+">', "<g>", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(title)}" ', 1).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
