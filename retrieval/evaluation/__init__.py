"""Judged collections, measures over runs, and how sure they are."""

from retrieval.evaluation.collections import BeirCollection, read_qrels
from retrieval.evaluation.contrast import ContrastPair, ContrastResult, contrast_accuracy
from retrieval.evaluation.measures import (
    LatencySummary,
    Measured,
    bootstrap_interval,
    evaluate_run,
    summarize_latency,
)

__all__ = [
    "BeirCollection",
    "ContrastPair",
    "ContrastResult",
    "LatencySummary",
    "Measured",
    "bootstrap_interval",
    "contrast_accuracy",
    "evaluate_run",
    "read_qrels",
    "summarize_latency",
]
