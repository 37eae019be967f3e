"""The second stage: cross-encoders, what they read of a passage, and how long they may read."""

from __future__ import annotations

from pathlib import Path

from retrieval.config import RerankConfig
from retrieval.errors import ModelError
from retrieval.protocols import Reranker
from retrieval.rerankers.answers import Outcomes, answer_threshold, held_out, model_threshold
from retrieval.rerankers.board import Reading
from retrieval.rerankers.budget import read_candidates, read_together
from retrieval.rerankers.calibration import (
    Calibration,
    IsotonicCalibration,
    PlattCalibration,
    Threshold,
    fit_isotonic,
    fit_platt,
    threshold_for_precision,
)
from retrieval.rerankers.cross_encoder import OnnxCrossEncoder
from retrieval.rerankers.forecast import Forecast, LikelySettled
from retrieval.rerankers.graphs import find_graph, model_digest
from retrieval.rerankers.index_calibration import HasCalibration, IndexCalibration, reranker_identity
from retrieval.rerankers.model_calibration import RerankerCalibration, TwinMargin, read_calibration, write_calibration
from retrieval.rerankers.passages import choose_window, choose_windows, windows_of
from retrieval.rerankers.reader import MOST_TWINS
from retrieval.rerankers.score_cache import CacheStatistics, ScoreCache
from retrieval.rerankers.speed import ReadingSpeed
from retrieval.rerankers.task import EarlyStop, ReadingTask
from retrieval.rerankers.torch_cross_encoder import TorchCrossEncoder

__all__ = [
    "CacheStatistics",
    "Calibration",
    "EarlyStop",
    "Forecast",
    "HasCalibration",
    "IndexCalibration",
    "IsotonicCalibration",
    "LikelySettled",
    "MOST_TWINS",
    "OnnxCrossEncoder",
    "Outcomes",
    "PlattCalibration",
    "Reading",
    "ReadingSpeed",
    "ReadingTask",
    "RerankerCalibration",
    "ScoreCache",
    "Threshold",
    "TorchCrossEncoder",
    "TwinMargin",
    "answer_threshold",
    "choose_window",
    "choose_windows",
    "fit_isotonic",
    "fit_platt",
    "held_out",
    "model_digest",
    "model_threshold",
    "open_reranker",
    "read_calibration",
    "read_candidates",
    "read_together",
    "reranker_identity",
    "threshold_for_precision",
    "windows_of",
    "write_calibration",
]


def open_reranker(config: RerankConfig, folder: Path | None = None) -> Reranker:
    """The cross-encoder of a configuration: ONNX Runtime where its folder holds a graph, torch otherwise.

    The model itself is loaded when it is first used.

    Args:
        config: Model, tokens, threads, batch size and cache.
        folder: Where the model lies; ``None`` takes ``config.model`` as a folder, or else as a hub name for torch.

    Raises:
        ModelError: The folder does not exist or is incomplete.
    """
    place = Path(config.model).expanduser() if folder is None else folder
    if folder is not None and not folder.is_dir():
        raise ModelError(f"the folder {folder} of the cross-encoder {config.model!r} does not exist")
    if place.is_dir() and find_graph(place) is not None:
        return OnnxCrossEncoder(
            place,
            max_tokens=config.max_tokens,
            threads=config.threads,
            cache_bytes=int(config.cache_mb * 1_000_000),
        )
    source = place if place.is_dir() else config.model
    return TorchCrossEncoder(source, max_tokens=config.max_tokens, threads=config.threads, batch_size=config.batch_size)
