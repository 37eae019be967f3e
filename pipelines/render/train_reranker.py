"""What the training of a cross-encoder made, and how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.train_reranker import RerankerReport


def render_reranker(console: Console, report: RerankerReport) -> None:
    """Lists, loss, held-out figure, agreement of the rounded graph, and the line of configuration."""
    out = visible(str(report.out))
    console.print(
        f"{out}: a cross-encoder of {report.layers} layers, in {report.seconds / 60:.1f} minutes", style="bold"
    )
    resumed = ", from the checkpoint" if report.resumed else ""
    console.print(f"start     {visible(report.start)}{resumed}")
    console.print(
        f"lists     {report.lists:,}, and {report.contrast_lists:,} contrast lists for negation and opposites"
    )
    if report.without_negatives > report.lists / 2:
        console.print(
            "          most have no negatives: 'retrieval mine' finds some, and training gains", style="yellow"
        )
    first, last = (report.losses[0][1], report.losses[-1][1]) if report.losses else (0.0, 0.0)
    console.print(
        f"training  {report.steps:,} steps, {report.loss} loss {first:.3f} to {last:.3f}, "
        f"{report.pairs_per_second:.0f} pairs/s"
    )
    console.print(
        f"held out  {report.held_out:,} lists, reciprocal rank {report.before:.3f} before, {report.after:.3f} after"
    )
    if report.after <= report.before:
        console.print("          training did not help; more lists or more minutes may", style="yellow")
    if report.roundings:
        _render_rounding(console, report)
    console.print()
    console.print("Use it:")
    console.print(f"  retrieval search QUERY --set rerank.model={out}", soft_wrap=True)


def _render_rounding(console: Console, report: RerankerReport) -> None:
    written = report.roundings[-1]
    kept = f", {' and '.join(written.kept)} in float" if written.kept else ""
    console.print(
        f"int8      ranks as the float network with correlation {written.agreement:.4f}{kept}; "
        f"{written.milliseconds:.1f} ms a pair, {written.megabytes:.1f} MB"
    )
    if written.kept:
        console.print(f"          with every matrix rounded it was {report.roundings[0].agreement:.4f}")
    if written.agreement < report.agreement_wanted:
        console.print(f"          below the {report.agreement_wanted} asked for even so", style="yellow")
