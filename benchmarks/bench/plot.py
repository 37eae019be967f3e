"""The findings as a picture: a bar for each system, and how cost grows where that was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench import cold_start, encode, first_stage, growth, two_stage
from benchmarks.bench.figures import TIMES, Findings, Row, ratio, shown
from benchmarks.bench.report import ordered

_PANELS = (
    (encode.TWICE, "Encode the corpus twice over, words known"),
    (f"{first_stage.ARMS['hybrid']}, p50", "Fetch 100 candidates by both arms, p50"),
    (two_stage.WHAT, "Query to the reranked top ten, p50"),
    (cold_start.WHAT, "A whole process"),
)
_CURVES = {
    "total_s": "ingest, s",
    "peak_anonymous_mb": "peak memory, MB",
    "disk_mb": "disk, MB",
    "hybrid_p50_ms": "search, ms",
}
_OURS, _PEER = "#1b6ca8", "#b8b8b8"
_LABEL = 34


def draw(record: Mapping[str, Any], target: Path) -> None:
    """Write an SVG file from the content of ``bench.json``; the same content gives the same file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    findings = Findings.joined(Findings.read(part) for part in ordered(record).values())
    panels = [(title, rows) for what, title in _PANELS if (rows := _rows(findings, what))]
    grown = _grown(findings)
    heights = [1.15 * len(rows) + 1.6 for _, rows in panels] + ([7.0] if grown else [])
    style = {"svg.hashsalt": "bench", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure = plt.figure(figsize=(8, 0.3 * sum(heights) + 0.6), layout="constrained")
        if not heights:
            figure.text(0.5, 0.5, "nothing was measured", ha="center")
        grid = figure.add_gridspec(max(1, len(heights)), len(_CURVES), height_ratios=heights or [1])
        for place, (title, rows) in enumerate(panels):
            _bars(figure.add_subplot(grid[place, :]), title, rows)
        for place, (name, title) in enumerate(_CURVES.items() if grown else ()):
            _curve(figure.add_subplot(grid[len(panels), place]), grown, name, title)
        figure.savefig(target, format="svg", metadata={"Date": None})
        plt.close(figure)


def _rows(findings: Findings, what: str) -> list[Row]:
    return sorted((row for row in findings.rows if row.what == what), key=lambda row: -row.median)


def _grown(findings: Findings) -> dict[str, list[tuple[float, float]]]:
    """For each column of the growth its sizes and values, by rising size."""
    found = {}
    for name, (what, _) in growth.COLUMNS.items():
        points = [
            (growth.size_of(row.system), row.median)
            for row in findings.rows
            if (row.question, row.what) == (growth.QUESTION, what)
        ]
        if points:
            found[name] = sorted(points)
    return found


def _bars(axes: Any, title: str, rows: list[Row]) -> None:
    own = next((row for row in rows if row.system in {"this", cold_start.SEARCH}), None)
    names = ["\n".join(textwrap.wrap(row.system, _LABEL)) for row in rows]
    colors = [_OURS if row.system.startswith(("this", "retrieval")) else _PEER for row in rows]
    bars = axes.barh(names, [row.median for row in rows], color=colors)
    axes.bar_label(bars, [_label(row, own) for row in rows], padding=3)
    axes.margins(x=0.2)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", which="both", bottom=False, labelbottom=False)


def _label(row: Row, own: Row | None) -> str:
    """The median, and how many times ours it is where it is more."""
    times = ratio(row, own)
    more = f"  ({shown(times, TIMES)})" if times is not None and times > 1 else ""
    return f"{shown(row.median, row.unit)}{more}"


def _curve(axes: Any, grown: Mapping[str, list[tuple[float, float]]], name: str, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    axes.plot(*zip(*grown[name], strict=True), "o-", color=_OURS, label="p50")
    axes.set_xscale("log")
    if name == "hybrid_p50_ms":
        axes.plot(*zip(*grown["hybrid_p95_ms"], strict=True), "o:", color=_OURS, label="p95")
        axes.legend(frameon=False)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(_size))
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("documents")


def _size(value: float, _: object) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1000:g} k" if value >= 1000 else f"{value:g}"
