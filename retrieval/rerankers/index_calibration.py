"""What an index says about the logits of the cross-encoder: its own calibration and threshold, kept in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

from retrieval.protocols import Reranker
from retrieval.rerankers.calibration import Calibration, Threshold
from retrieval.rerankers.model_calibration import RerankerCalibration, function_from_json, function_to_json


@runtime_checkable
class HasCalibration(Protocol):
    """A reranker that knows whose logits it gives and what they mean."""

    def digest(self) -> str: ...

    def calibration(self) -> RerankerCalibration | None: ...


@dataclass(frozen=True, slots=True)
class IndexCalibration:
    """What the logits of a cross-encoder mean for the documents of one index.

    Args:
        reranker: Whose logits these are; see `reranker_identity`.
        passages: Logit of a passage -> probability that it answers the query.
        threshold: The probability of a passage from which on it is a good answer.
        labels: ``own`` judgements of this index, or those that the ``model`` was calibrated with.
        fitted_on: What it was fitted on, for people.
        date: When, ISO 8601 UTC.
    """

    reranker: str
    passages: Calibration
    threshold: Threshold
    labels: Literal["own", "model"]
    fitted_on: str
    date: str

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values."""
        return {
            "reranker": self.reranker,
            "passages": function_to_json(self.passages),
            "threshold": self.threshold.to_json(),
            "labels": self.labels,
            "fitted_on": self.fitted_on,
            "date": self.date,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            ValueError: A key is missing or a value is not usable.
        """
        try:
            if content["labels"] not in ("own", "model"):
                raise ValueError(f"the labels of a calibration are own or model, not {content['labels']!r:.100}")
            return cls(
                reranker=str(content["reranker"]),
                passages=function_from_json(content["passages"]),
                threshold=Threshold.from_json(content["threshold"]),
                labels=content["labels"],
                fitted_on=str(content["fitted_on"]),
                date=str(content["date"]),
            )
        except KeyError as error:
            raise ValueError(f"the key {error} is missing") from error
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(str(error)) from error


def reranker_identity(reranker: Reranker) -> str:
    """Name of a reranker, with the digest of its weights where they can be told."""
    return f"{reranker.name}@{reranker.digest()}" if isinstance(reranker, HasCalibration) else reranker.name
