"""What a distillation made, and how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.distill import DistillReport

_OPENED_WITH = {
    "two-stage": "StaticEncoder.open({out!r})",
    "model2vec": "model2vec.StaticModel.from_pretrained({out!r})",
    "sentence-transformers": "SentenceTransformer({out!r})",
}


def render_distillation(console: Console, report: DistillReport) -> None:
    """Vocabulary, size, closeness to the teacher, and the line of configuration."""
    out = visible(str(report.out))
    console.print(
        f"{out}: {report.tokens:,} tokens of {report.dim} dimensions, {report.megabytes:.1f} MB, "
        f"in {_duration(report.seconds)}",
        style="bold",
    )
    console.print(f"teacher     {visible(report.teacher)}, {report.teacher_dim} dimensions, {report.pooling} pooling")
    if report.texts:
        skipped = f", {report.rejected:,} could not be read" if report.rejected else ""
        console.print(f"corpus      {report.texts:,} texts{skipped}")
    if report.words or report.phrases:
        console.print(f"vocabulary  {report.words:,} words of the corpus, {report.phrases:,} phrases")
    if report.before is not None and report.after is not None:
        console.print(f"training    on {report.sentences:,} sentences, measured on {report.held_out:,} others:")
        console.print(f"            cosine with the teacher {report.before:.3f} before, {report.after:.3f} after")
        if report.after <= report.before:
            console.print("            training did not help and was not kept", style="yellow")
    console.print()
    console.print("Use it with an index of its own:")
    console.print(f"  retrieval ingest PATH --index NEW --set encoder.model={out}", soft_wrap=True)
    console.print(f"or in Python: {_OPENED_WITH[report.format].format(out=out)}", soft_wrap=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
