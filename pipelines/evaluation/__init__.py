"""Measure systems side by side on judged collections: quality, time, bytes, money, and what differs for certain."""

from pipelines.evaluation.loss_report import LossReport, LostDocument
from pipelines.evaluation.report import CollectionReport, Evaluation, Setup, SystemResult
from pipelines.evaluation.run import EvaluateOptions, evaluate_collection, evaluate_runs
from pipelines.evaluation.systems import BASELINE, MEASURES, SYSTEMS

__all__ = [
    "BASELINE",
    "CollectionReport",
    "EvaluateOptions",
    "Evaluation",
    "LossReport",
    "LostDocument",
    "MEASURES",
    "SYSTEMS",
    "Setup",
    "SystemResult",
    "evaluate_collection",
    "evaluate_runs",
]
