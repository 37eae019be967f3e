"""Bytes that the first stage searches for each passage."""

from __future__ import annotations

from itertools import islice

from pipelines.plan import code_bytes
from pipelines.quantization.measure import Measurer
from pipelines.quantization.queries import SampledQueries
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import FirstStage

FLOAT_BYTES = 4
ENTRY_BYTES = 8  # the number of a term and its weight

_SAMPLED_PASSAGES = 10_000
_PROBES = 20


def dense_bytes(pipeline: TwoStagePipeline) -> float:
    """Of the dense vector of a passage as searches read it.

    Engines compress only above their thresholds, so the share of vectors for which that is in effect is told from the
    scores that the texts of a few passages give.
    """
    with pipeline.reading() as serving:
        plain, quantization = serving.encoder.dim * FLOAT_BYTES, serving.store.quantization
        passages = list(islice(serving.store.scan(payload=["text"], batch=_PROBES), _PROBES))
        if quantization.kind == "none" or not passages:
            return plain
        probes = SampledQueries({point.id: str(point.payload["text"]) for point in passages}, "pseudo")
        count = pipeline.manifest.passages
        share = Measurer(pipeline.config, serving, count, probes, lambda stage, done, total: None).in_effect()
        return share * code_bytes(quantization, serving.encoder.dim) + (1 - share) * plain


def sparse_bytes(pipeline: TwoStagePipeline) -> float:
    """Of the BM25 entries of a passage, on average; 0 for an empty index."""
    points = islice(pipeline.store.scan(payload=False, vectors=["bm25"]), _SAMPLED_PASSAGES)
    entries = [len(point.sparse.indices) if point.sparse is not None else 0 for point in points]
    return ENTRY_BYTES * sum(entries) / len(entries) if entries else 0.0


def bytes_of(first_stage: FirstStage, dense: float, sparse: float) -> float:
    """Of what a search with these arms reads."""
    return {"dense": dense, "bm25": sparse, "hybrid": dense + sparse}[first_stage]
