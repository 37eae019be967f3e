"""Fit what the logits of the cross-encoder mean for one index, and from which probability on a hit is a good answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.progress import StepCallback
from pipelines.quantization.queries import SampledQueries
from pipelines.search import Search
from pipelines.search_options import SearchOptions
from retrieval.config import Config
from retrieval.datatypes import Results
from retrieval.manifest import timestamp
from retrieval.protocols import Reranker
from retrieval.rerankers import (
    Calibration,
    HasCalibration,
    IndexCalibration,
    Outcomes,
    Threshold,
    answer_threshold,
    fit_platt,
    held_out,
    model_threshold,
    reranker_identity,
)

LEAST_RIGHT = 20
"""Judged passages that have to be among those read, for a fit that is worth something."""
NO_ANSWER = 0.5
"""Share of queries without an answer, where nothing else is known."""

_OTHER_TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9)
Read = tuple[tuple[float, bool], ...]
"""Logit of each passage that was read for a query, and whether its document is judged relevant."""


@dataclass(frozen=True, slots=True)
class CalibrateReport:
    """What was fitted.

    Args:
        labels: ``own`` judgements, or those that the ``model`` was calibrated with.
        reranker: Cross-encoder and digest of its weights.
        threshold: Where a good answer begins, with its precision and recall on the labels of the fit.
        held_out: Precision and recall for queries that it was not fitted on, by cross-validation; ``None`` where there
            are too few, or no labels of the index.
        others: Thresholds for other targets that can be reached, for comparison.
        queries: Judged queries that were asked.
        found: How many of them have a judged document among what was read.
        no_answer: Share of queries without an answer that was assumed.
        passages: Function from logits to probabilities.
        stored: Whether it is in the manifest now.
        before: The threshold that was stored before, ``None`` for none.
        seconds: Wall-clock time.
    """

    labels: Literal["own", "model"]
    reranker: str
    threshold: Threshold
    held_out: tuple[float, float] | None
    others: tuple[Threshold, ...]
    queries: int
    found: int
    no_answer: float
    passages: Calibration
    stored: bool
    before: Threshold | None
    seconds: float


class Calibrator:
    """Asks queries, and fits a function and a threshold to what the cross-encoder makes of what is found.

    Args:
        config: Settings of the search: what is read decides over what is best.
        search: Search over the index.
        reranker: The cross-encoder that it uses.
        on_progress: Called with what is under way.
    """

    def __init__(
        self, config: Config, search: Search, reranker: Reranker, on_progress: StepCallback | None = None
    ) -> None:
        self._config = config
        self._search = search
        self._reranker = reranker
        self._on_progress = on_progress or (lambda stage, done, total: None)

    def of_model(self, target: float) -> tuple[IndexCalibration, CalibrateReport]:
        """The function and a threshold that the model brings along.

        Raises:
            ValueError: It has no calibration, or none for this target.
        """
        started = time.monotonic()
        own = self._reranker.calibration() if isinstance(self._reranker, HasCalibration) else None
        if own is None:
            raise ValueError(
                f"the cross-encoder {self._reranker.name} has no calibration to take a threshold from; give queries "
                "and judgements of this index"
            )
        threshold = model_threshold(own, target)
        others = tuple(model_threshold(own, one.target) for one in own.thresholds)
        identity = reranker_identity(self._reranker)
        calibration = IndexCalibration(identity, own.passages, threshold, "model", own.fitted_on, timestamp())
        report = CalibrateReport(
            "model", identity, threshold, None, others, 0, 0, NO_ANSWER, own.passages, False, None,
            time.monotonic() - started,
        )  # fmt: skip
        return calibration, report

    def of_labels(
        self, queries: SampledQueries, target: float, no_answer: float, strange: Sequence[str] = ()
    ) -> tuple[IndexCalibration, CalibrateReport]:
        """Fit both to judgements.

        Half of the rows, or ``no_answer`` of them, are queries without an answer: those given, or else the judged ones
        once more with their judged documents taken out of what was read.

        Args:
            queries: Judged ones.
            target: Precision wanted.
            no_answer: Share of queries that the index does not answer, from 0 to below 1.
            strange: Queries without an answer; empty to simulate them.

        Raises:
            ValueError: Too few judged passages were read, or no threshold reaches the target.
        """
        started = time.monotonic()
        if not 0 <= no_answer < 1:
            raise ValueError(f"the share of queries without an answer is from 0 to below 1, not {no_answer}")
        if queries.qrels is None:
            raise ValueError("a threshold is fitted to judgements; give qrels beside the queries, or neither")
        own = self._ask("judged queries", list(queries.texts.items()), queries.qrels)
        foreign = self._ask("queries without an answer", [(text, text) for text in strange], {})
        passages = self._fit([*own, *foreign])
        outcomes, numbers = _outcomes(own, foreign, passages, no_answer)
        threshold = answer_threshold(outcomes, target)
        found = sum(any(right for _, right in read) for read in own)
        identity = reranker_identity(self._reranker)
        made = f"{len(foreign)} queries" if foreign else "the same without their judged passages"
        fitted_on = f"{len(own)} judged queries of this index, {no_answer:.0%} of the weight on {made}"
        calibration = IndexCalibration(identity, passages, threshold, "own", fitted_on, timestamp())
        report = CalibrateReport(
            labels="own",
            reranker=identity,
            threshold=threshold,
            held_out=held_out(outcomes, numbers, target),
            others=_reachable(outcomes),
            queries=len(own),
            found=found,
            no_answer=no_answer,
            passages=passages,
            stored=False,
            before=None,
            seconds=time.monotonic() - started,
        )
        return calibration, report

    def _fit(self, reads: Sequence[Read]) -> Calibration:
        rows = [row for read in reads for row in read]
        right = sum(label for _, label in rows)
        if right < LEAST_RIGHT or right == len(rows):
            raise ValueError(
                f"{right} of {len(rows)} passages that the cross-encoder read are judged relevant; a fit needs "
                f"{LEAST_RIGHT} at least and some that are not: judge more queries, or leave the judgements out"
            )
        return fit_platt([logit for logit, _ in rows], [label for _, label in rows])

    def _ask(
        self, stage: str, queries: Sequence[tuple[str, str]], qrels: Mapping[str, Mapping[str, int]]
    ) -> list[Read]:
        depth = max(1, self._config.rerank.depth)
        options = SearchOptions.from_config(
            self._config,
            2 * self._config.first_stage.candidates,
            {"depth": depth, "rerank": True, "budget_ms": math.inf, "group_by": "passage", "min_score": 0},
        )
        reads = []
        for done, (name, text) in enumerate(queries):
            self._on_progress(stage, done, len(queries))
            (results,) = self._search.run([text], options)
            reads.append(_read(results, qrels.get(name, {})))
        return [read for read in reads if read]


def _read(results: Results, judged: Mapping[str, int]) -> Read:
    return tuple(
        (hit.rerank_score, judged.get(hit.document_id, 0) > 0) for hit in results if hit.rerank_score is not None
    )


def _outcomes(
    own: Sequence[Read], foreign: Sequence[Read], passages: Calibration, no_answer: float
) -> tuple[Outcomes, list[int]]:
    """Rows of queries as they are and of queries without an answer, and the number of the query of each."""
    hidden = foreign or [tuple(row for row in read if not row[1]) for read in own]
    rows: list[tuple[float, float | None, float]] = []
    numbers: list[int] = []
    for reads, share in ((own, 1 - no_answer), (hidden, no_answer)):
        asked = [(number, read) for number, read in enumerate(reads) if read]
        for number, read in asked if share else []:
            right = [logit for logit, label in read if label]
            best = float(passages.probability(max(logit for logit, _ in read)))
            rows.append((best, float(passages.probability(max(right))) if right else None, share / len(asked)))
            numbers.append(number)
    return Outcomes.of(rows), numbers


def _reachable(outcomes: Outcomes) -> tuple[Threshold, ...]:
    reached = []
    for target in _OTHER_TARGETS:
        try:
            reached.append(answer_threshold(outcomes, target))
        except ValueError:
            break
    return tuple(reached)
