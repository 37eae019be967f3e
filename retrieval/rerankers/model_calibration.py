"""What a model folder says about its logits: ``calibration.json``, and what a search makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from retrieval.errors import ModelError
from retrieval.model_files import read_model_json
from retrieval.rerankers.calibration import Calibration, IsotonicCalibration, PlattCalibration, Threshold
from retrieval.rerankers.forecast import Forecast
from retrieval.rerankers.graphs import model_digest

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class TwinMargin:
    """How far apart two logits have to be, where texts differ only by polarity, to say which comes first.

    Args:
        logits: Distance from which on the order counts as settled, above 0.
        right_above: Share of right orders from there on, on the labels of the fit.
        right_below: The same of smaller distances.
        fitted_on: What it was fitted on and how, for people.
    """

    logits: float
    right_above: float
    right_below: float
    fitted_on: str

    def __post_init__(self) -> None:
        if not (self.logits > 0 and math.isfinite(self.logits)):
            raise ValueError(f"the margin of twins is a number of logits above 0, not {self.logits}")
        if not (0 <= self.right_above <= 1 and 0 <= self.right_below <= 1):
            raise ValueError(f"shares of right orders are from 0 to 1, not {self.right_above} and {self.right_below}")


@dataclass(frozen=True, slots=True)
class RerankerCalibration:
    """What the logits of one cross-encoder mean.

    Args:
        passages: Logit of a passage -> probability that it answers the query.
        results: Best logit among the hits of a search -> probability that one of them answers the query.
        thresholds: Of ``results``, for rising targets of precision.
        fitted_on: What it was fitted on and how, for people.
        model_digest: First 12 hex digits of the SHA-256 of the graph whose logits these are.
        twins: When the order of twins is settled; ``None`` where nobody has measured it.
        forecast: What is to be expected of candidates that were not read; ``None`` where nobody has measured it.
    """

    passages: Calibration
    results: Calibration
    thresholds: tuple[Threshold, ...]
    fitted_on: str
    model_digest: str
    twins: TwinMargin | None = None
    forecast: Forecast | None = None

    def answer_probability(self, logits: Sequence[float | None]) -> float:
        """Probability that one of the hits of a search answers the query.

        Args:
            logits: ``rerank_score`` of the hits; those that are ``None`` were not read and do not count.

        Returns:
            0 when nothing was read.
        """
        read = [logit for logit in logits if logit is not None]
        return float(self.results.probability(max(read))) if read else 0.0

    def threshold(self, target: float) -> Threshold:
        """The threshold that was fitted for a target of precision.

        Raises:
            ValueError: None was; the message names those that were.
        """
        for threshold in self.thresholds:
            if math.isclose(threshold.target, target):
                return threshold
        there = ", ".join(f"{threshold.target:g}" for threshold in self.thresholds)
        raise ValueError(f"no threshold for a precision of {target:g}; there are some for {there}")

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values."""
        return {
            "fitted_on": self.fitted_on,
            "model_digest": self.model_digest,
            "passages": function_to_json(self.passages),
            "results": function_to_json(self.results),
            "thresholds": [threshold.to_json() for threshold in self.thresholds],
            "twins": None if self.twins is None else asdict(self.twins),
            "forecast": None if self.forecast is None else self.forecast.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            ValueError: A key is missing or a value is not usable.
        """
        try:
            return cls(
                passages=function_from_json(content["passages"]),
                results=function_from_json(content["results"]),
                thresholds=tuple(Threshold.from_json(one) for one in content["thresholds"]),
                fitted_on=str(content["fitted_on"]),
                model_digest=str(content["model_digest"]),
                twins=_twins_from_json(content.get("twins")),
                forecast=None if content.get("forecast") is None else Forecast.from_json(content["forecast"]),
            )
        except KeyError as error:
            raise ValueError(f"the key {error} is missing") from error
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(str(error)) from error


def read_calibration(folder: Path, digest: str | None = None) -> RerankerCalibration | None:
    """The calibration of a cross-encoder in a folder, ``None`` when it has none.

    Args:
        folder: Folder of the model.
        digest: Of its graph, where that is known; ``None`` reads the graph.

    Raises:
        ModelError: ``calibration.json`` is malformed, or was fitted on another graph than the one in the folder.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        calibration = RerankerCalibration.from_json(read_model_json(path, folder))
    except ValueError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    digest = model_digest(folder) if digest is None else digest
    if calibration.model_digest != digest:
        raise ModelError(
            f"{path} was fitted on the graph {calibration.model_digest}, but {folder} holds {digest}; "
            f"fit it anew or remove it"
        )
    return calibration


def write_calibration(folder: Path, calibration: RerankerCalibration) -> None:
    """Put a calibration into the folder of its cross-encoder.

    Raises:
        ModelError: It cannot be written.
    """
    path = folder / CALIBRATION_FILE
    try:
        path.write_text(json.dumps(calibration.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror}") from error


def _twins_from_json(content: Mapping[str, Any] | None) -> TwinMargin | None:
    if content is None:
        return None
    numbers = {name: float(content[name]) for name in ("logits", "right_above", "right_below")}
    return TwinMargin(**numbers, fitted_on=str(content["fitted_on"]))


def function_to_json(function: Calibration) -> dict[str, Any]:
    """A calibration as a mapping of JSON values."""
    if isinstance(function, PlattCalibration):
        return {"kind": "platt", "slope": function.slope, "intercept": function.intercept}
    return {"kind": "isotonic", "logits": list(function.logits), "probabilities": list(function.probabilities)}


def function_from_json(content: Mapping[str, Any]) -> Calibration:
    """Read what `function_to_json` made.

    Raises:
        KeyError: A key is missing.
        ValueError: A value is not usable.
    """
    kind = content["kind"]
    if kind == "platt":
        return PlattCalibration(float(content["slope"]), float(content["intercept"]))
    if kind == "isotonic":
        return IsotonicCalibration(
            tuple(float(logit) for logit in content["logits"]), tuple(float(p) for p in content["probabilities"])
        )
    raise ValueError(f"the kind of a calibration is platt or isotonic, not {kind!r}")
