"""What settings are judged by: relevance where there are judgements, else likeness to the most careful search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.tuning.replay import Floats
from retrieval.datatypes import Results
from retrieval.evaluation import evaluate_run

_FEWEST_HITS = 10
_ALL_HITS = 100


def hits_of(metric: str) -> int:
    """How many hits a measure looks at.

    Raises:
        ValueError: The measure is unknown.
    """
    evaluate_run({"query": {"document": 1}}, {}, [metric])
    cuts = [int(cut) for cut in re.findall(r"@(\d+)", metric)]
    return max(_FEWEST_HITS, *cuts) if cuts else _ALL_HITS


def likeness(results: Sequence[Results]) -> dict[str, dict[str, int]]:
    """Judgements that say: the nearer to the order of these hits, the better.

    The first of ten hits has the grade 10, the last one 1.

    Args:
        results: Of the most careful search, for each query.

    Returns:
        Grades by place of the query and document id; nothing for a query without hits.
    """
    return {
        str(number): {hit.document_id: len(found) - place for place, hit in enumerate(found)}
        for number, found in enumerate(results)
        if len(found)
    }


@dataclass(frozen=True, slots=True)
class Judge:
    """Measures results.

    Args:
        metric: Name of the measure.
        names: Name of each query in its place.
        qrels: Grades by name of the query and document id.
    """

    metric: str
    names: tuple[str, ...]
    qrels: Mapping[str, Mapping[str, int]]

    def values(self, results: Sequence[Results]) -> Floats:
        """float64 (queries,): the measure of each query; 0 for one without hits."""
        run = {
            name: [(hit.document_id, -float(place)) for place, hit in enumerate(found)]
            for name, found in zip(self.names, results, strict=True)
        }
        measured = evaluate_run(self.qrels, run, [self.metric]).per_query[self.metric]
        return np.array([measured[name] for name in self.names])
