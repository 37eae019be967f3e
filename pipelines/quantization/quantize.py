"""Compress the vectors of a live index, with a measurement before and after, and take it back where it costs too much.

Searches go on meanwhile. On a server they are answered all the time. The embedded engine rebuilds its segments in a
process of its own, which stops no other thread; searches wait for its end, some seconds for every 100,000 passages.

A process that is killed on the way leaves a complete index. The embedded one has then either the compression that was
asked for, perhaps not yet measured, or none, and says which; a server ends on its own what it has begun.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.progress import StepCallback
from pipelines.quantization.measure import NDCG, OVERLAP, Measurement, Measurer, Values
from pipelines.quantization.queries import SampledQueries
from pipelines.serving import Serving
from retrieval.config import Config, MemoryStoreConfig, ServerStoreConfig
from retrieval.datatypes import IndexManifest, Quantization
from retrieval.errors import StoreError
from retrieval.evaluation import bootstrap_interval

DEFAULT_QUANTIZATION = Quantization("turbo", 2)
"""TurboQuant with two bits, three times the candidates, rescored."""
MAX_LOSS = {NDCG: 0.005, OVERLAP: 0.02}
"""What may be lost where the caller does not say."""

Outcome = Literal["kept", "taken back", "not in effect", "off"]

_PAUSE_S = 1.0
_ROUNDS = 5
_sleep = time.sleep


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What a change of quantization did.

    Args:
        outcome: ``kept``, ``taken back`` (it lost too much), ``not in effect`` (the engine compressed nothing, and the
            change was taken back), or ``off``.
        reason: One sentence for a person.
        wanted: What was asked for.
        quantization: What the index has now.
        passages: How many there are.
        vector_bytes: Bytes of one vector without compression, which stays stored in any case.
        asked: Kind of the queries (see `SampledQueries`); ``None`` where nothing was measured.
        queries: How many.
        measure: What decides: nDCG@10 of the static arm where there are judgements, else its overlap with exact search.
        loss: How much of it was lost, against the state before if that was not compressed, else against exact search;
            ``None`` where nothing was measured.
        loss_interval: 95 % bootstrap interval of the loss.
        max_loss: How much may be lost; ``None`` where nothing was measured.
        before: The state before; ``None`` where nothing was measured.
        after: The state that was tried; ``None`` where none came into effect.
        seconds: Wall-clock time of everything.
    """

    outcome: Outcome
    reason: str
    wanted: Quantization
    quantization: Quantization
    passages: int
    vector_bytes: int
    asked: Literal["judged", "real", "pseudo"] | None
    queries: int
    measure: str | None
    loss: float | None
    loss_interval: tuple[float, float] | None
    max_loss: float | None
    before: Measurement | None
    after: Measurement | None
    seconds: float

    @property
    def done(self) -> bool:
        """Whether the index has now what was asked for."""
        return self.outcome in {"kept", "off"}


class Quantizer:
    """One change of the quantization of an index whose passages stay the same meanwhile.

    Args:
        config: Settings of the index.
        serving: What serves.
        manifest: Manifest of the index.
        on_progress: Called with what is under way.
    """

    def __init__(
        self, config: Config, serving: Serving, manifest: IndexManifest, on_progress: StepCallback | None
    ) -> None:
        self._config = config
        self._serving = serving
        self._store = serving.store
        self._manifest = manifest
        self._on_progress = on_progress or (lambda stage, done, total: None)
        self._started = time.monotonic()

    def off(self) -> QuantizeReport:
        """Take quantization back, without a measurement.

        Raises:
            StoreError: The store failed; it has the old quantization, or none.
        """
        before = self._store.quantization
        self._on_progress("switching off", 0, 0)
        self._switch(Quantization())
        reason = f"{before} is off" if before.kind != "none" else "there was no quantization"
        return self._report("off", f"{reason}; vectors are compared as they were given", Quantization())

    def run(self, wanted: Quantization, queries: SampledQueries, max_loss: float | None) -> QuantizeReport:
        """Measure, switch on, measure again, and keep it or take it back.

        Args:
            wanted: Any kind but none.
            queries: What to measure with.
            max_loss: How much may be lost of nDCG@10 where the queries are judged, else of the overlap with exact
                search; ``None`` for `MAX_LOSS`.

        Raises:
            ValueError: ``max_loss`` is not from 0 to 1, or the judgements are of other documents.
            StoreError: The index has no vectors, or the store failed; it has the old quantization, or none.
        """
        measure = NDCG if queries.kind == "judged" else OVERLAP
        bound = MAX_LOSS[measure] if max_loss is None else max_loss
        if not 0 <= bound <= 1:
            raise ValueError(f"max_loss is from 0 to 1, not {bound}")
        before = self._store.quantization
        measurer = Measurer(self._config, self._serving, self._manifest.passages, queries, self._on_progress)
        measured, values = measurer.measure("before")
        if before.kind != "none":
            values = measurer.exact()
        if values.ndcgs is not None and not any(values.ndcgs):
            raise ValueError(
                f"not one of {len(values.ndcgs)} queries finds a document that is relevant for it; the judgements are "
                f"of other documents than those in {self._store.location}"
            )
        try:
            tried = self._try(wanted, measurer)
            lost = [] if tried is None else _differences(measure, values, tried[1])
            kept = tried is not None and float(np.mean(lost)) <= bound
            if not kept:
                self._take_back(before)
        except BaseException as error:
            try:
                self._take_back(before)
            except StoreError as second:
                raise StoreError(
                    f"{error}; taking it back failed too: {second}; 'retrieval info' says what the index has now"
                ) from error
            raise
        if tried is None:
            reason = f"not in effect: {self._obstacle(wanted)}; it was taken back"
            return self._report("not in effect", reason, wanted, queries, measure, bound, before=measured)
        loss = float(np.mean(lost))
        return self._report(
            "kept" if kept else "taken back",
            f"{wanted} {_change(measure, loss, bound)}; {'kept' if kept else 'it was taken back'}",
            wanted,
            queries,
            measure,
            bound,
            loss=loss,
            interval=bootstrap_interval(lost),
            before=measured,
            after=tried[0],
        )

    def _try(self, wanted: Quantization, measurer: Measurer) -> tuple[Measurement, Values] | None:
        """Switch on and measure; ``None`` where it does not come into effect."""
        self._on_progress(f"switching to {wanted}", 0, 0)
        self._switch(wanted)
        return measurer.measure("after") if self._wait(measurer) else None

    def _switch(self, quantization: Quantization) -> None:
        self._store.set_quantization(quantization)
        if isinstance(self._config.store, ServerStoreConfig):
            self._on_progress("waiting for the server", 0, 0)
            self._store.optimize()

    def _take_back(self, before: Quantization) -> None:
        self._on_progress("taking it back", 0, 0)
        self._switch(before)

    def _wait(self, measurer: Measurer) -> bool:
        """Wait while more and more vectors are compressed, and tell whether any is."""
        share, rounds = measurer.in_effect(), 0
        if not isinstance(self._config.store, ServerStoreConfig):
            return share > 0
        while share < 1 and rounds < _ROUNDS:
            _sleep(_PAUSE_S)
            self._store.optimize()
            now = measurer.in_effect()
            rounds = 0 if now > share else rounds + 1
            share = now
        return share > 0

    def _obstacle(self, wanted: Quantization) -> str:
        passages, threshold = self._manifest.passages, self._config.hnsw.threshold
        if isinstance(self._config.store, MemoryStoreConfig):
            return "a store in memory compresses nothing"
        if isinstance(self._config.store, ServerStoreConfig) and passages < threshold:
            return (
                f"the engine makes {wanted} only in segments of {threshold:,} passages or more "
                f"(hnsw.threshold), and the index has {passages:,}"
            )
        return f"the engine has not compressed the vectors of {passages:,} passages; its log may say why"

    def _report(
        self,
        outcome: Outcome,
        reason: str,
        wanted: Quantization,
        queries: SampledQueries | None = None,
        measure: str | None = None,
        max_loss: float | None = None,
        *,
        loss: float | None = None,
        interval: tuple[float, float] | None = None,
        before: Measurement | None = None,
        after: Measurement | None = None,
    ) -> QuantizeReport:
        return QuantizeReport(
            outcome=outcome,
            reason=reason,
            wanted=wanted,
            quantization=self._store.quantization,
            passages=self._manifest.passages,
            vector_bytes=self._serving.encoder.dim * 4,
            asked=None if queries is None else queries.kind,
            queries=0 if queries is None else len(queries.texts),
            measure=measure,
            loss=loss,
            loss_interval=interval,
            max_loss=max_loss,
            before=before,
            after=after,
            seconds=time.monotonic() - self._started,
        )


def _differences(measure: str, before: Values, after: Values) -> Sequence[float]:
    one, other = (before.ndcgs, after.ndcgs) if measure == NDCG else (before.overlaps, after.overlaps)
    if one is None or other is None:
        raise StoreError(f"{measure} was not measured")
    return [value - changed for value, changed in zip(one, other, strict=True)]


def _change(measure: str, loss: float, bound: float) -> str:
    change = (
        f"{'loses' if loss > 0 else 'gains'} {abs(loss):.4f} of {measure}" if loss else f"leaves {measure} as it was"
    )
    return f"{change} ({bound:.4f} may be lost)"
