"""Plots of an evaluation: quality against latency and bytes, and what every query gained or lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.render.output import visible
from pipelines.render.report_svg import GAIN, INK, LOSS, SERIES, series, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.evaluation import CollectionReport, SystemResult

_MARKERS = "osD^vPX*"
_LINE = 15.0
_CHARACTER = 7.0
_APART = 0.02
_STEPS = 500


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
                f"{visible(one.system)}\n{one.gained:,} better, {one.lost:,} worse,\n{same:,} same", fontsize=11
            )
        for panel in panels.flat[len(compared) :]:
            panel.set_visible(False)
        for row in panels:
            row[0].set_ylabel(f"{measure} minus {visible(report.baseline)}")

    height = 0.6 + 2.5 * -(-len(compared) // 3)
    return svg_of(draw, height, f"{measure}: gains and losses of every query", f"{report.name}-gains")


def _draw_differences(panel: Axes, differences: Sequence[float]) -> None:
    # One outline with a limited number of steps: a bar for each of thousands of queries would make the file large.
    count = min(len(differences), _STEPS)
    starts = [step * len(differences) // count for step in range(count)]
    edges = [edge for pair in zip(starts, [*starts[1:], len(differences)], strict=True) for edge in pair]
    doubled = [differences[start] for start in starts for _ in (0, 1)]
    panel.fill_between(edges, [max(value, 0.0) for value in doubled], color=GAIN, linewidth=0)
    panel.fill_between(edges, [min(value, 0.0) for value in doubled], color=LOSS, linewidth=0)
    panel.axhline(0, color=INK, linewidth=0.8)
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

    apart = _apart(spots)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        for spot in apart:
            colour = series(spot.number)
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
        _label(axes, apart)

    return svg_of(draw, 4.0, title, f"{report.name}-{kind}")


def _apart(spots: Sequence[Spot]) -> list[Spot]:
    """Spots at the same place across, moved by as little as keeps their lines from covering each other."""
    moved: list[Spot] = []
    for spot in spots:
        x = spot.x
        while any(abs(x / other.x - 1) < _APART / 2 for other in moved):
            x *= 1 + _APART
        moved.append(replace(spot, x=x, right=max(x, spot.right)))
    return moved


def _draw_runs(axes: Axes, report: CollectionReport, measure: str) -> None:
    """Runs from elsewhere have a quality and no place on the other axis: a line."""
    for number, system in enumerate(report.systems):
        if system.setup is None:
            colour = series(number)
            axes.axhline(system.means[measure], color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                visible(system.name),
                (1, system.means[measure]),
                xycoords=("axes fraction", "data"),
                xytext=(-4, -12),
                textcoords="offset points",
                horizontalalignment="right",
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
            color=series(spot.number),
            fontweight="bold",
        )
