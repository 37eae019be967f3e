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
from retrieval.evaluation.minimal_pairs import MinimalPair, Suite, open_suite
from retrieval.evaluation.permutation import PermutationResult, permutation_test

__all__ = [
    "BeirCollection",
    "ContrastPair",
    "ContrastResult",
    "LatencySummary",
    "Measured",
    "MinimalPair",
    "PermutationResult",
    "Suite",
    "bootstrap_interval",
    "contrast_accuracy",
    "evaluate_run",
    "open_suite",
    "permutation_test",
    "read_qrels",
    "summarize_latency",
]
