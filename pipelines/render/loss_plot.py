"""The plot of where relevant documents were lost: a waterfall from all of them to those in the top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.render.loss_tables import TITLE, steps
from pipelines.render.report_svg import INK, LOSS, series, svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.evaluation import LossReport

_ROW = 0.34
_MARGIN = 0.55
_LEFT = 3
_ROOM = 1.5


def waterfall(losses: LossReport, name: str) -> str:
    """A bar for what is left, a bar for what was lost on the way, from top to bottom.

    Args:
        losses: The losses.
        name: Of the collection, from which ids are made.

    Returns:
        An ``<svg>`` element; empty where nothing is relevant.
    """
    lines = steps(losses)
    if not losses.relevant:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = losses.relevant
        for row, step in enumerate(lines):
            colour = LOSS if step.documents and step.avoidable else series(0)
            if step.lost:
                left -= step.documents
                axes.barh(row, step.documents, left=left, height=0.62, color=colour)
                label, start = f"-{step.documents:,}" if step.documents else "0", left + step.documents
            else:
                left, start = step.documents, step.documents
                axes.barh(row, step.documents, height=0.74, color=series(_LEFT))
                label = f"{step.documents:,}, nDCG {step.ndcg:.3f}"
            share = f" ({100 * step.documents / losses.relevant:.1f} %)" if step.lost and step.documents else ""
            axes.annotate(
                label + share,
                (start, row),
                xytext=(5, 0),
                textcoords="offset points",
                verticalalignment="center",
                color=colour if step.lost else INK,
                fontweight="normal" if step.lost else "bold",
            )
        axes.set_yticks(range(len(lines)), [step.label for step in lines])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlim(0, losses.relevant * _ROOM)
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= losses.relevant and tick == int(tick)]
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.set_xlabel("relevant documents")
        axes.grid(visible=False, axis="y")

    return svg_of(draw, _MARGIN + _ROW * len(lines), f"{TITLE}: {losses.system}", f"{name}-losses")
