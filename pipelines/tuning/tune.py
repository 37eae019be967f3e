"""Choose dimensions, quantization, fusion, depth, blend and budget for an index, by measurement.

Every part that a setting needs is asked for once: the lists of both arms, and what the cross-encoder says to each pair
of query and passage. Settings are then replayed over that record. With judgements the way of choosing is itself
measured: what is chosen without a part of the queries is measured on that part. The index is only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipelines.evaluation.footprint import sparse_bytes
from pipelines.progress import StepCallback
from pipelines.quantization.queries import SampledQueries
from pipelines.tuning.choosing import Limits, Rows, Scored, explore, folds, frontier, select
from pipelines.tuning.judging import hits_of
from pipelines.tuning.measuring import Measured
from pipelines.tuning.preparing import Prepared, Preparer
from pipelines.tuning.report import Asked, Fold, TunePlan, TunePoint, TuneReport
from pipelines.tuning.settings import Setting, changes
from pipelines.tuning.timing import Timer
from pipelines.tuning.verdict import Case, decide
from retrieval.evaluation import Comparison, LatencySummary, bootstrap_interval, compare

if TYPE_CHECKING:
    from pipelines.serving import Serving
    from pipelines.two_stage import TwoStagePipeline

MAX_LOSS: Mapping[Asked, float] = {"judged": 0.01, "real": 0.02, "pseudo": 0.02}
"""What a cheaper setting may lose where the caller does not say."""

_POINTS = 6


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How to tune; `pipelines.TwoStagePipeline.tune` documents them."""

    metric: str = "nDCG@10"
    folds: int = 5
    seed: int = 0
    latency_ms: float | None = None
    max_bytes: float | None = None
    max_loss: float | None = None
    seconds: float = 180.0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds is a whole number from 2, not {self.folds}")
        limits = (("latency_ms", self.latency_ms), ("max_bytes", self.max_bytes), ("seconds", self.seconds))
        for name, value in limits:
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is above 0, not {value}")
        if self.max_loss is not None and not 0 <= self.max_loss <= 1:
            raise ValueError(f"max_loss is from 0 to 1, not {self.max_loss}")
        hits_of(self.metric)


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """What choices give on queries that they were not made by."""

    values: np.ndarray[tuple[int], np.dtype[np.float64]]
    folds: tuple[Fold, ...]


class Tuner:
    """One choice of settings for the index of a pipeline, whose passages stay the same meanwhile.

    Args:
        pipeline: Over the index.
        serving: What serves.
        options: How to tune.
        on_plan: Called before the cross-encoder reads.
        on_progress: Called with what is under way.
    """

    def __init__(
        self,
        pipeline: TwoStagePipeline,
        serving: Serving,
        options: TuneOptions,
        on_plan: Callable[[TunePlan], None],
        on_progress: StepCallback,
    ) -> None:
        self._started = time.monotonic()
        self._pipeline = pipeline
        self._options = options
        self._on_progress = on_progress
        self._ask = Preparer(pipeline, serving, options.metric, options.seconds, on_plan, on_progress)

    def run(self, queries: SampledQueries) -> TuneReport:
        """Measure and choose.

        Raises:
            ValueError: The judgements are of other documents.
            StoreError: No query finds anything, or the store failed.
            ModelError: The cross-encoder cannot be opened.
        """
        prepared = self._ask.prepare(queries)
        measured = Measured(
            prepared.record,
            prepared.replay,
            prepared.judge,
            sparse_bytes(self._pipeline),
            self._options.latency_ms,
            lambda number: self._on_progress("replaying settings", number, 0),
        )
        loss = MAX_LOSS[queries.kind] if self._options.max_loss is None else self._options.max_loss
        limits = Limits(
            self._pipeline.manifest.passages,
            self._options.latency_ms,
            self._options.max_bytes,
            loss,
            no_dearer=queries.kind != "judged",
        )
        return self._choose(prepared, measured, limits, queries.kind)

    def _choose(self, prepared: Prepared, measured: Measured, limits: Limits, asked: Asked) -> TuneReport:
        count, present = len(prepared.queries), self._ask.present
        rows: Rows = np.arange(count)

        def tried(own: Rows) -> list[Scored]:
            return explore(present, prepared.grid, measured.budgets, measured.scored, own, limits)

        held = self._hold_out(tried, rows, limits) if count > 1 else None
        everything = tried(rows)
        best = select(everything, rows, limits)
        times = self._time(prepared, [everything[0], best, *frontier(everything, rows, _POINTS)])
        timed = {setting: _with_time(measured.known[setting], latency) for setting, latency in times.items()}
        chosen = timed[best.setting]
        if limits.excess(chosen, rows) > 1:  # real searches take longer than their parts
            chosen = select([timed[present], *timed.values()], rows, limits)
        comparison = self._compare(held, everything[0], prepared)
        mean = None if held is None else float(held.values.mean())
        found = decide(
            Case(timed[present], chosen, comparison, mean, self._options.metric, asked, measured.tried, rows, limits)
        )
        taken = found.chosen.setting
        points = {setting: _point(one, times[setting], present, taken, rows) for setting, one in timed.items()}
        changed = changes(present, taken)
        return TuneReport(
            outcome=found.outcome,
            reason=found.reason,
            asked=asked,
            metric=self._options.metric,
            queries=count,
            present=points[present],
            chosen=points[taken],
            frontier=tuple(sorted(points.values(), key=lambda point: (-point.quality, point.p50))),
            held_out=mean,
            held_out_interval=None if held is None else bootstrap_interval(held.values.tolist()),
            comparison=comparison,
            folds=() if held is None else held.folds,
            changes=changed,
            needs=_needs({change.key for change in changed}),
            notes=(*prepared.notes, *_notes(comparison, measured.skipped, limits)),
            settings_tried=measured.tried,
            pairs=self._ask.reranker.pairs,
            ms_per_pair=self._ask.reranker.seconds_per_pair * 1000,
            passages=limits.passages,
            seconds=time.monotonic() - self._started,
            setting=taken,
            base=present,
        )

    def _hold_out(self, tried: Callable[[Rows], list[Scored]], rows: Rows, limits: Limits) -> _HeldOut:
        """Choose without each fold, and measure what was chosen on it."""
        values, parts = np.zeros(len(rows)), []
        for number, part in enumerate(folds(len(rows), self._options.folds, self._options.seed), start=1):
            self._on_progress("folds", number, self._options.folds)
            rest = np.setdiff1d(rows, part)
            settings = tried(rest)
            chosen = select(settings, rest, limits)
            values[part] = chosen.values[part]
            differing = ", ".join(
                f"{change.key} {change.after}" for change in changes(self._ask.present, chosen.setting)
            )
            parts.append(Fold(len(part), differing, chosen.mean(part), settings[0].mean(part)))
        return _HeldOut(values, tuple(parts))

    def _time(self, prepared: Prepared, settings: Sequence[Scored]) -> dict[Setting, LatencySummary]:
        wanted = list(dict.fromkeys(one.setting for one in settings))
        timer = Timer(
            self._ask.config,
            self._ask.present,
            self._ask.variants,
            self._pipeline.sparse,
            self._pipeline.reranker(),
            list(prepared.queries.values()),
        )
        return timer.times(wanted, lambda number: self._on_progress("timing searches", number, len(wanted)))

    def _compare(self, held: _HeldOut | None, present: Scored, prepared: Prepared) -> Comparison | None:
        if held is None:
            return None
        metric, names = self._options.metric, list(prepared.queries)
        both = {
            name: {metric: dict(zip(names, values.tolist(), strict=True))}
            for name, values in (("chosen", held.values), ("present", present.values))
        }
        return compare(both, "present")[0]


def _notes(comparison: Comparison | None, skipped: int, limits: Limits) -> list[str]:
    notes = []
    if comparison is not None and (reach := np.ptp(comparison.interval) / 2) > limits.max_loss:
        count = comparison.queries
        notes.append(f"{count:,} queries do not show a difference under about {reach:.3f}; more of them would")
    if skipped:
        notes.append(f"{skipped} settings were left out: they would have needed more time to read")
    return notes


def _with_time(scored: Scored | None, latency: LatencySummary) -> Scored:
    assert scored is not None
    return replace(scored, milliseconds=np.full(len(scored.values), latency.p50))


def _point(scored: Scored, latency: LatencySummary, present: Setting, taken: Setting, rows: Rows) -> TunePoint:
    setting = scored.setting
    roles = [name for name, one in (("present", present), ("chosen", taken)) if one == setting]
    return TunePoint(
        name=", ".join(roles),
        dimensions=setting.variant.dimensions,
        quantization=str(setting.variant.quantization),
        arms=setting.fusion.arms,
        fusion=setting.fusion.fusion,
        dense_weight=setting.fusion.dense_weight,
        depth=setting.depth,
        first_stage_weight=setting.first_stage_weight,
        budget_ms=setting.budget_ms,
        quality=scored.mean(rows),
        interval=bootstrap_interval(scored.values.tolist()),
        p50=latency.p50,
        p95=latency.p95,
        bytes_per_passage=scored.bytes_per_passage,
        reranked=scored.reranked,
    )


def _needs(changed: set[str]) -> Literal["rebuild", "quantize"] | None:
    if "encoder.dimensions" in changed:
        return "rebuild"
    return "quantize" if "quantization" in changed else None
