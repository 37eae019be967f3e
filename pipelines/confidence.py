"""How sure the cross-encoder is of a hit: probabilities for its logits, and from which one on a hit counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipelines.search_options import MinScore
from retrieval.errors import ModelError, StoreCorruptError
from retrieval.protocols import Reranker
from retrieval.rerankers import (
    Calibration,
    Forecast,
    HasCalibration,
    IndexCalibration,
    Threshold,
    reranker_identity,
)

_REMEDY = "'retrieval calibrate --qrels PATH' fits one on judgements of your own and stores it with the index"

DEFAULT_TWIN_MARGIN = 1.0
"""Logits, for a cross-encoder of which nobody has measured it."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """What the logits of the open cross-encoder mean for the open index.

    Args:
        reranker: Whose logits; empty without one.
        passages: Logit of a passage -> probability that it answers the query; ``None`` when nobody has fitted it.
        threshold: Where a good answer begins, as stored with the index; ``None`` without one.
        twin_margin: Distance of two logits from which on the order of twins counts as settled.
        warning: What is not as it should be, for a person; ``None`` otherwise.
        forecast: What is to be expected of candidates that were not read; ``None`` where nobody has measured it.
    """

    reranker: str = ""
    passages: Calibration | None = None
    threshold: Threshold | None = None
    twin_margin: float = DEFAULT_TWIN_MARGIN
    warning: str | None = None
    forecast: Forecast | None = None

    @classmethod
    def of(cls, reranker: Reranker, stored: IndexCalibration | None) -> Self:
        """The calibration of the index where it is of this reranker, else that of the model.

        Args:
            reranker: The cross-encoder in use.
            stored: Calibration of the index, ``None`` when it has none.
        """
        warning, own = None, None
        try:
            name = reranker_identity(reranker)
            own = reranker.calibration() if isinstance(reranker, HasCalibration) else None
        except ModelError as error:
            name, warning = reranker.name, f"hits have no probability: {error}"
        margin = DEFAULT_TWIN_MARGIN if own is None or own.twins is None else own.twins.logits
        forecast = None if own is None else own.forecast
        if stored is not None and stored.reranker == name:
            return cls(name, stored.passages, stored.threshold, margin, forecast=forecast)
        if stored is not None and warning is None:
            warning = (
                f"the threshold of the index was fitted for the cross-encoder {stored.reranker}, not for {name}; "
                "run 'retrieval calibrate' again"
            )
        return cls(name, None if own is None else own.passages, None, margin, warning, forecast)

    def probabilities(self, logits: Sequence[float | None]) -> list[float | None]:
        """One for each logit, ``None`` where there is no logit or no calibration."""
        if self.passages is None:
            return [None] * len(logits)
        function = self.passages
        return [None if logit is None else float(function.probability(logit)) for logit in logits]

    def reaches(self, logit: float, *, least: float) -> bool:
        """Whether a logit has a probability of ``least``."""
        (probability,) = self.probabilities([logit])
        return reaches(probability, least)

    def least(self, min_score: MinScore | None) -> float | None:
        """The probability that a hit needs; ``None`` when it needs none.

        Raises:
            ValueError: A probability is asked for, and there are none; or a threshold, and the index has none.
        """
        if not min_score:
            return None
        if not self.reranker:
            return 1.0  # nobody reads, so that no hit has any
        if min_score == "auto":
            if self.threshold is None:
                why = self.warning or "the index has none"
                raise ValueError(
                    f"min_score 'auto' takes the threshold that is stored with the index, and {why}; "
                    "'retrieval calibrate' stores one, or give a probability"
                )
            return self.threshold.probability
        if self.passages is None:
            raise ValueError(
                f"min_score {min_score:g} compares with a probability, and the logits of {self.reranker} have no "
                f"calibration; {_REMEDY}, or leave min_score out"
            )
        return min_score


def reaches(probability: float | None, least: float) -> bool:
    """Whether something is at least so probable; what was not read is not."""
    return probability is not None and probability >= least


def stored_calibration(content: Mapping[str, Any] | None, location: str) -> IndexCalibration | None:
    """What a manifest says about the cross-encoder.

    Args:
        content: ``calibration`` of the manifest.
        location: Name of the index, for messages.

    Raises:
        StoreCorruptError: It is malformed.
    """
    if content is None:
        return None
    try:
        return IndexCalibration.from_json(content)
    except ValueError as error:
        raise StoreCorruptError(
            f"the manifest of {location} holds an unusable calibration ({error}); set its 'calibration' to null and "
            "run 'retrieval calibrate' again"
        ) from error
