"""Models that adapters name: opened at first use, then shared by all adapters of the process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from retrieval.config import EncoderConfig, RerankConfig
from retrieval.datatypes import FloatArray
from retrieval.encoders import StaticEncoder
from retrieval.integrations.searching import DETAILS
from retrieval.models import find_model, open_encoder
from retrieval.ordering import order
from retrieval.protocols import Encoder, Reranker
from retrieval.rerankers import RerankerCalibration, choose_windows, open_reranker, read_calibration, read_candidates

_opening = threading.Lock()


def shared_encoder(model: str, dimensions: int | None = None) -> StaticEncoder:
    """The static encoder of a bundled name, a folder, or a hub name ``owner/model``.

    A folder is read once; what changes in it later is not seen by this process.

    Args:
        model: The model.
        dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.

    Raises:
        ModelError: The model is not found or its folder is malformed.
        ValueError: It has fewer dimensions than asked for.
    """
    with _opening:
        return _encoder(model, dimensions)


def shared_reranker(model: str) -> TextReranker:
    """The cross-encoder of a bundled name, a folder, or a hub name; see `shared_encoder`."""
    with _opening:
        return _reranker(model)


@lru_cache(maxsize=4)
def _encoder(model: str, dimensions: int | None) -> StaticEncoder:
    return open_encoder(EncoderConfig(model=model, dimensions=dimensions))


@lru_cache(maxsize=4)
def _reranker(model: str) -> TextReranker:
    config = RerankConfig(model=model)
    folder = find_model(model)
    return TextReranker(
        config, open_reranker(config, folder), read_calibration(folder), _encoder("starter-static", None)
    )


@dataclass(frozen=True, slots=True)
class Reread:
    """What became of one text.

    Args:
        position: Place among the texts given, from 0.
        details: ``rank``, ``score``, ``probability``, ``rerank_score``, ``read`` and ``input_rank``, as JSON values;
            ``warning`` where something was not as asked for.
    """

    position: int
    details: Mapping[str, Any]

    @property
    def score(self) -> float:
        """Higher is better; 0 for a text that was not read."""
        return float(self.details["score"])

    def over(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Metadata in which the details of this reading stand over those of an earlier search, under `DETAILS`."""
        earlier = metadata.get(DETAILS)
        return {**metadata, DETAILS: {**(earlier if isinstance(earlier, dict) else {}), **self.details}}


class TextReranker:
    """Orders texts by what a cross-encoder makes of them; of a long one it reads the window closest to the query.

    Safe to call from several threads.

    Args:
        config: Batch size and words of a window.
        reranker: The cross-encoder.
        calibration: What its logits mean; ``None`` gives no probabilities.
        encoder: Chooses the windows.
    """

    def __init__(
        self, config: RerankConfig, reranker: Reranker, calibration: RerankerCalibration | None, encoder: Encoder
    ) -> None:
        self._config = config
        self._reranker = reranker
        self._calibration = calibration
        self._encoder = encoder

    def rerank(
        self, query: str, texts: Sequence[str], top_n: int | None = None, budget_ms: float | None = None
    ) -> list[Reread]:
        """The best texts, best first; equal ones, and those that were not read, in the order given.

        A cross-encoder that fails leaves the order as it was, and ``warning`` among the details says why.

        Args:
            query: The query.
            texts: The texts, the likeliest first: that is the order in which they are read.
            top_n: How many; ``None`` for all.
            budget_ms: Milliseconds after which it stops reading; ``None`` for no limit.

        Raises:
            ValueError: ``top_n`` is below 1 or ``budget_ms`` is not above 0.
        """
        if top_n is not None and top_n < 1:
            raise ValueError(f"top_n is at least 1, not {top_n}")
        if budget_ms is not None and not budget_ms > 0:
            raise ValueError(f"budget_ms is above 0, not {budget_ms!r}")
        if not texts:
            return []
        ranges = choose_windows(self._vector(query), texts, self._encoder, self._config.window_words)
        reading = read_candidates(
            query,
            [text[start:end] for text, (start, end) in zip(texts, ranges, strict=True)],
            [0.0] * len(texts),
            self._reranker,
            first_stage_weight=0.0,
            top_k=len(texts),
            budget_ms=budget_ms,
            batch_size=self._config.batch_size,
        )
        places = range(len(texts))
        best = order(reading.scores, list(places), [str(place) for place in places])[:top_n]
        return [
            Reread(
                at,
                {
                    "rank": rank,
                    "score": float(reading.scores[at]),
                    "probability": self._probability(reading.logits[at]),
                    "rerank_score": _number(reading.logits[at]),
                    "read": None if reading.logits[at] is None else list(ranges[at]),
                    "input_rank": at + 1,
                    **({} if reading.warning is None else {"warning": reading.warning}),
                },
            )
            for rank, at in enumerate(best, start=1)
        ]

    def _vector(self, query: str) -> FloatArray:
        vector: FloatArray = self._encoder.encode_queries([query])[0]
        return vector

    def _probability(self, logit: float | None) -> float | None:
        if logit is None or self._calibration is None:
            return None
        return float(self._calibration.passages.probability(logit))


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
