"""Judged collections, measures over runs, and how sure they are."""

from retrieval.evaluation.collections import BeirCollection, read_qrels
from retrieval.evaluation.comparison import Comparison, compare
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
from retrieval.evaluation.trec import TrecRun, read_run, write_qrels, write_run

__all__ = [
    "BeirCollection",
    "Comparison",
    "ContrastPair",
    "ContrastResult",
    "LatencySummary",
    "Measured",
    "MinimalPair",
    "PermutationResult",
    "Suite",
    "TrecRun",
    "bootstrap_interval",
    "compare",
    "contrast_accuracy",
    "evaluate_run",
    "open_suite",
    "permutation_test",
    "read_qrels",
    "read_run",
    "summarize_latency",
    "write_qrels",
    "write_run",
]
