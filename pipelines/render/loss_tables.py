"""The words and cells of where relevant documents were lost, the same for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.render.evaluation_tables import Grid
from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.evaluation import Evaluation, LossReport
    from retrieval.evaluation.losses import Stage

TITLE = "Where relevant documents were lost"
_ARMS = {"dense": "encoder", "bm25": "BM25"}
_FIRST_STAGE: tuple[Stage, ...] = (
    "not ingested",
    "encoder and BM25",
    "quantization",
    "approximate search",
    "fusion cut",
)
_READING: tuple[Stage, ...] = ("rerank depth", "rerank budget")
_ORDERING: tuple[Stage, ...] = ("passage window", "cross-encoder")


@dataclass(frozen=True, slots=True)
class Step:
    """A line on the way from all relevant documents to those in the top.

    Args:
        label: What it says.
        documents: How many are left, or were lost here.
        lost: Whether it is a loss.
        ndcg: nDCG@10 that is still possible; ``None`` for losses.
        avoidable: Whether a stage is to blame for the loss.
    """

    label: str
    documents: int
    lost: bool
    ndcg: float | None = None
    avoidable: bool = True


def steps(losses: LossReport) -> list[Step]:
    """All lines from the first to the last; each line that is no loss is the one before it less the losses between."""
    left = losses.relevant
    lines = [Step("relevant documents", left, lost=False, ndcg=losses.everything)]

    def lose(*stages: Stage) -> Iterator[Step]:
        nonlocal left
        for stage in stages:
            left -= losses.stages[stage]
            if losses.stages[stage] or _is_of_interest(losses, stage):
                yield Step(_label(losses, stage), losses.stages[stage], lost=True, avoidable=stage != "no place")

    lines += lose("no place", *_FIRST_STAGE)
    lines.append(Step(f"among the {losses.candidates:,} candidates", left, lost=False, ndcg=losses.ideal.mean))
    lines += lose(*_READING)
    lines.append(Step("read by the cross-encoder", left, lost=False, ndcg=losses.ideal_read.mean))
    lines += lose(*_ORDERING)
    lines.append(Step(f"in the top {losses.places}", left, lost=False, ndcg=losses.reached.mean))
    return lines


def way(losses: LossReport) -> Grid:
    """The table of all steps."""
    rows = []
    for step in steps(losses):
        label = f"  - {step.label}" if step.lost else step.label
        count = f"-{step.documents:,}" if step.lost and step.documents else f"{step.documents:,}"
        share = f"{_percent(step.documents, losses.relevant)} %"
        rows.append((label, count, share, "" if step.ndcg is None else f"{step.ndcg:.3f}"))
    title = f"{TITLE}: {visible(losses.system)}, top {losses.places}"
    return Grid(title, ("", "documents", "share", "nDCG@10 possible"), tuple(rows))


def arms(losses: LossReport) -> Grid:
    """What each arm would have found alone."""
    missed, near = losses.stages["encoder and BM25"], 10 * losses.candidates
    header = ["", f"in its first {losses.candidates:,}", "share", "only it"]
    if missed:
        header += [f"to {near:,}", "below", "not at all"]
    rows = []
    for arm in losses.arms:
        row = [_ARMS[arm.arm], f"{arm.fetched:,}", f"{_percent(arm.fetched, losses.relevant)} %", f"{arm.only:,}"]
        rows.append((*row, *((f"{arm.near:,}", f"{arm.far:,}", f"{arm.unseen:,}") if missed else ())))
    title = "Relevant documents of each arm alone"
    if missed:
        title += f"; right: the {missed:,} that both missed"
    return Grid(title, tuple(header), tuple(rows))


def notes(losses: LossReport) -> list[str]:
    """How to read the table."""
    lines = [
        "nDCG@10 possible: that of the best order of what is left; in the last line that of the result. A document is "
        "counted once, at the first stage that lost it, by its best passage; ranks of the arms are those of exact "
        "search."
    ]
    if losses.stages["no place"]:
        lines.append(
            f"No place: queries with more than {losses.places} relevant documents cannot show all of them; those that "
            "came furthest count as losses."
        )
    if losses.stages["passage window"]:
        lines.append(
            "Passage window: another window of a document that was read scores enough for the top while all others "
            "keep their scores, so this is an upper bound."
        )
    if losses.exact_gain is not None:
        lines.append(
            "Quantization and approximate search are told apart by ranking the 1,000 nearest passages by their "
            "compressed vectors alone."
        )
    return lines


def overview(evaluation: Evaluation) -> Grid | None:
    """All collections side by side; ``None`` for a single one, or where losses were not looked for."""
    reports = [(report.name, report.losses) for report in evaluation.collections if report.losses is not None]
    if len(reports) < 2:
        return None
    all_losses = [losses for _, losses in reports]

    def share(label: str, *stages: Stage) -> tuple[str, ...]:
        counts = [sum(losses.stages[stage] for stage in stages) for losses in all_losses]
        cells = [f"{_percent(count, one.relevant)} %" for count, one in zip(counts, all_losses, strict=True)]
        return (label, *cells)

    rows = [share(f"in the top {all_losses[0].places}", "found"), share("lost by the first stage", *_FIRST_STAGE)]
    rows += [share("not read", *_READING), share("read and ranked too low", *_ORDERING)]
    if any(losses.stages["no place"] for losses in all_losses):
        rows.append(share("no place", "no place"))
    rows.append(("nDCG@10 of the candidates, at best", *(f"{losses.ideal.mean:.3f}" for losses in all_losses)))
    rows.append(("nDCG@10 of those read, at best", *(f"{losses.ideal_read.mean:.3f}" for losses in all_losses)))
    rows.append(("nDCG@10 reached", *(f"{losses.reached.mean:.3f}" for losses in all_losses)))
    words = {"open": "not distinguishable"}
    rows.append(("bottleneck", *(words.get(losses.bottleneck, losses.bottleneck) for losses in all_losses)))
    return Grid(f"{TITLE}: {visible(all_losses[0].system)}", ("", *(visible(name) for name, _ in reports)), tuple(rows))


def _is_of_interest(losses: LossReport, stage: Stage) -> bool:
    """Whether a stage that lost nothing is worth a line."""
    if stage in {"quantization", "approximate search"}:
        return losses.exact_gain is not None
    return stage not in {"no place", "rerank budget"}


def _label(losses: LossReport, stage: Stage) -> str:
    labels: dict[Stage, str] = {
        "no place": f"no place: over {losses.places} relevant",
        "not ingested": "not in the index",
        "encoder and BM25": "missed by encoder and BM25",
        "fusion cut": f"cut by fusion at {losses.candidates:,}",
        "rerank depth": f"not read: depth {losses.depth:,}, early stop",
        "rerank budget": "not read: budget spent",
        "passage window": "cross-encoder: other window",
        "cross-encoder": "cross-encoder: too low",
    }
    return labels.get(stage, stage)


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f}" if of else "0.0"
