"""Plots of an evaluation as SVG that takes its colours from the page around it, so that they follow its theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.render.output import visible
from retrieval.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.evaluation import CollectionReport, SystemResult

SERIES = 8
"""How many colours of systems the page defines: ``--s0`` to ``--s7``."""

# Colours that matplotlib writes and the page replaces.
_INK, _FAINT, _GAIN, _LOSS = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _GAIN: "--gain", _LOSS: "--loss"}
_VARIABLES |= {f"#0a0a{number:02x}": f"--s{number}" for number in range(SERIES)}
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, and it can be searched
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
}
_MARKERS = "osD^vPX*"
_WIDTH = 7.6
_LINE = 15.0
_CHARACTER = 7.0
_DECORATION = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Spot:
    """A system in a plot of quality.

    Args:
        name: Of the system.
        number: Of its colour and marker.
        x: Milliseconds or bytes.
        right: End of the line to the right of ``x``: the 95th percentile; ``x`` for no line.
        y: Quality.
        low: Lower end of its interval.
        high: Upper end.
    """

    name: str
    number: int
    x: float
    right: float
    y: float
    low: float
    high: float


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


def quality_against_latency(report: CollectionReport, measure: str) -> str:
    """Median latency against quality; a line to the 95th percentile, one over the interval of the quality.

    Returns:
        An ``<svg>`` element; empty where nothing was timed.
    """
    spots = [
        _spot(report, number, system, system.latency.p50, system.latency.p95)
        for number, system in enumerate(report.systems)
        if system.latency is not None
    ]
    label = "milliseconds a query, median and 95th percentile"
    return _scatter(report, spots, measure, label, f"{measure} against latency", "latency")


def quality_against_bytes(report: CollectionReport, measure: str) -> str:
    """Bytes that the first stage searches for each passage, against quality.

    Returns:
        An ``<svg>`` element; empty where no bytes are known.
    """
    spots = [
        _spot(report, number, system, system.bytes_per_passage, system.bytes_per_passage)
        for number, system in enumerate(report.systems)
        if system.bytes_per_passage
    ]
    return _scatter(report, spots, measure, "bytes a passage", f"{measure} against bytes", "bytes")


def gains_and_losses(report: CollectionReport, measure: str) -> str:
    """The difference of every query from the baseline, best first, one panel for each system.

    Returns:
        An ``<svg>`` element; empty where nothing is compared.
    """
    compared = [one for one in report.comparisons if one.measure == measure]
    if not compared:
        return ""
    values = {system.name: system.per_query[measure] for system in report.systems}
    base = values[report.baseline]

    def draw(figure: Figure) -> None:
        columns = min(len(compared), 3)
        rows = -(-len(compared) // columns)
        panels: Any = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for panel, one in zip(panels.flat, compared, strict=False):
            _draw_differences(panel, sorted((values[one.system][query] - base[query] for query in base), reverse=True))
            same = one.queries - one.gained - one.lost
            panel.set_title(
                f"{visible(one.system)}\n{one.gained:,} better, {one.lost:,} worse, {same:,} same", fontsize=11
            )
        for panel in panels.flat[len(compared) :]:
            panel.set_visible(False)
        for row in panels:
            row[0].set_ylabel(f"{measure} minus {visible(report.baseline)}")

    height = 0.6 + 2.5 * -(-len(compared) // 3)
    return _svg(draw, height, f"{measure}: gains and losses of every query", f"{report.name}-gains")


def _draw_differences(panel: Axes, differences: Sequence[float]) -> None:
    edges = [position + side for position in range(len(differences)) for side in (0, 1)]
    doubled = [value for value in differences for _ in (0, 1)]
    # One outline for all queries: a bar for each of thousands would make the file large.
    panel.fill_between(edges, [max(value, 0.0) for value in doubled], color=_GAIN, linewidth=0)
    panel.fill_between(edges, [min(value, 0.0) for value in doubled], color=_LOSS, linewidth=0)
    panel.axhline(0, color=_INK, linewidth=0.8)
    panel.set_xlim(0, len(differences))
    panel.set_xlabel("queries")
    panel.grid(visible=False, axis="x")


def _spot(report: CollectionReport, number: int, system: SystemResult, x: float, right: float) -> Spot:
    measure = report.measures[0]
    low, high = system.intervals[measure]
    return Spot(visible(system.name), number % SERIES, x, right, system.means[measure], low, high)


def _scatter(report: CollectionReport, spots: Sequence[Spot], measure: str, label: str, title: str, kind: str) -> str:
    if not spots:
        return ""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        for spot in spots:
            colour = f"#0a0a{spot.number:02x}"
            axes.plot([spot.x, spot.x], [spot.low, spot.high], color=colour, linewidth=1.6, alpha=0.6)
            axes.plot([spot.x, spot.right], [spot.y, spot.y], color=colour, linewidth=1.6, alpha=0.6)
            axes.plot([spot.x], [spot.y], marker=_MARKERS[spot.number], color=colour, markersize=9, linestyle="none")
        smallest, largest = min(spot.x for spot in spots), max(spot.right for spot in spots)
        axes.set_xlim(smallest / 1.4, max(largest, smallest * 2) * 2.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{label} (logarithmic)")
        axes.set_ylabel(f"{measure}, 95 % interval")
        _draw_runs(axes, report, measure)
        _label(axes, spots)

    return _svg(draw, 4.0, title, f"{report.name}-{kind}")


def _draw_runs(axes: Axes, report: CollectionReport, measure: str) -> None:
    """Runs from elsewhere have a quality and no place on the other axis: a line."""
    for number, system in enumerate(report.systems):
        if system.setup is None:
            colour = f"#0a0a{number % SERIES:02x}"
            axes.axhline(system.means[measure], color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                visible(system.name),
                (0, system.means[measure]),
                xycoords=("axes fraction", "data"),
                xytext=(4, 3),
                textcoords="offset points",
                color=colour,
            )


def _label(axes: Axes, spots: Sequence[Spot]) -> None:
    """Names beside the spots, moved up where they would cover each other."""
    axes.figure.canvas.draw()  # fixes where the data lies on the page
    scale = 72 / axes.figure.dpi
    placed: list[tuple[float, float, float]] = []
    for spot in sorted(spots, key=lambda one: one.y):
        x, y = (axes.transData.transform((spot.x, spot.y)) * scale).tolist()
        target, width = y + 6, _CHARACTER * len(spot.name)
        for left, bottom, length in placed:
            if left < x + width and x < left + length and abs(target - bottom) < _LINE:
                target = bottom + _LINE
        placed.append((x, target, width))
        axes.annotate(
            spot.name,
            (spot.x, spot.y),
            xytext=(8, target - y),
            textcoords="offset points",
            color=f"#0a0a{spot.number:02x}",
            fontweight="bold",
        )


def _svg(draw: Callable[[Figure], None], height: float, title: str, salt: str) -> str:
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
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{_attribute(title)}" ', text, count=1).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
