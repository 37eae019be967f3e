"""Whether a choice is taken, and why, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.tuning.choosing import Limits, Rows, Scored, cheaper
from pipelines.tuning.report import Asked
from retrieval.evaluation import Comparison


@dataclass(frozen=True, slots=True)
class Finding:
    """What becomes of the configuration.

    Args:
        outcome: ``changed`` or ``kept``.
        chosen: The setting that is taken.
        reason: Why.
    """

    outcome: Literal["changed", "kept"]
    chosen: Scored
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """What there is to decide.

    Args:
        present: The present setting, with the milliseconds of real searches.
        chosen: What the way of choosing takes with all queries, likewise.
        comparison: Of held-out figures with the present setting; ``None`` where there are none.
        held_out: The held-out figure.
        metric: Name of the measure.
        asked: Kind of the queries.
        tried: How many settings were measured.
        rows: All queries.
        limits: What has to be kept.
    """

    present: Scored
    chosen: Scored
    comparison: Comparison | None
    held_out: float | None
    metric: str
    asked: Asked
    tried: int
    rows: Rows
    limits: Limits

    @property
    def quality(self) -> str:
        """Name of the measure, for a sentence."""
        return self.metric if self.asked == "judged" else f"likeness ({self.metric})"


def decide(case: Case) -> Finding:
    """Take a choice, unless it is no better on queries that it was not chosen by and costs no less."""
    present, chosen, comparison = case.present, case.chosen, case.comparison
    keeps = case.limits.excess(present, case.rows) <= max(1.0, case.limits.excess(chosen, case.rows))
    if chosen.setting == present.setting:
        return Finding("kept", present, _nothing_better(case))
    if comparison is None or case.held_out is None:
        if keeps:
            why = "one query says nothing about others, so the present configuration stays"
            return Finding("kept", present, why)
        return Finding("changed", chosen, f"{_exceeded(case)}; with one query there is nothing to test it on")
    shown = f"{comparison.difference:+.4f} of {case.quality} on held-out queries, {_interval(comparison)}"
    if not keeps:
        return Finding("changed", chosen, f"{_exceeded(case)}; the choice makes {shown}, {_costs(case)}")
    if comparison.outcome == "better":
        return Finding("changed", chosen, f"better: {shown}, {_costs(case)}")
    saves = cheaper(chosen, present, case.rows, case.limits)
    if comparison.difference < -case.limits.max_loss or (comparison.outcome == "worse" and not saves):
        why = f"the present configuration stays: what the search chose instead makes {shown}"
        return Finding("kept", present, why)
    if not saves:
        why = f"the present configuration stays: the best other one is {comparison.verdict} ({shown}) and not cheaper"
        return Finding("kept", present, why)
    lead = comparison.verdict if comparison.outcome == "open" else f"a little {comparison.verdict}"
    return Finding("changed", chosen, f"{lead} ({shown}), and cheaper: {_costs(case)}")


def _nothing_better(case: Case) -> str:
    if case.limits.excess(case.present, case.rows) > 1:
        return f"{_exceeded(case)}, and so does everything else that was tried; the present configuration stays"
    return (
        f"the present configuration stays: of {case.tried} settings none is both distinguishable from it and better "
        f"with {_queries(len(case.rows))}, and none that is as good is cheaper"
    )


def _exceeded(case: Case) -> str:
    limits, present, parts = case.limits, case.present, []
    if limits.latency_ms is not None and present.p50(case.rows) > limits.latency_ms:
        parts.append(f"takes {present.p50(case.rows):,.0f} ms of the {limits.latency_ms:,.0f} allowed")
    if limits.max_bytes is not None and present.bytes_per_passage > limits.max_bytes:
        parts.append(f"reads {present.bytes_per_passage:,.0f} bytes a passage of the {limits.max_bytes:,.0f} allowed")
    return f"the present configuration {' and '.join(parts) or 'exceeds a limit'}"


def _interval(comparison: Comparison) -> str:
    low, high = comparison.interval
    return f"95 % {low:+.4f} to {high:+.4f}"


def _costs(case: Case) -> str:
    one, other, rows = case.chosen, case.present, case.rows
    parts = [f"{one.p50(rows):,.0f} ms instead of {other.p50(rows):,.0f}"]
    if round(one.bytes_per_passage) != round(other.bytes_per_passage):
        parts.append(f"{one.bytes_per_passage:,.0f} bytes a passage instead of {other.bytes_per_passage:,.0f}")
    return ", ".join(parts)


def _queries(count: int) -> str:
    return f"{count:,} {'query' if count == 1 else 'queries'}"
