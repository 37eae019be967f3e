"""Rounding the matrices of an exported cross-encoder to 8 bits, as many as its ranking allows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.telemetry import refuse_telemetry
from retrieval.training.reranker.batches import INPUTS, TokenPair, pad_pairs
from retrieval.training.reranker.network import NetworkShape, Parameters, score_pairs
from retrieval.training.reranker.smoothing import smooth_graph

_LARGE = 10_000
"""Values of a constant above which its size matters."""

_MEASURED = 100
"""Pairs whose activations are looked at before rounding."""

# The matrices of a layer in the order in which the graph multiplies with them.
_PARTS = ("attention input",) * 3 + ("attention output", "feed-forward input", "feed-forward output")


@dataclass(frozen=True, slots=True)
class Rounding:
    """One choice of matrices to round, and what it does.

    Args:
        kept: Parts of the layers that stay in float: "feed-forward output", "attention input" and so on.
        agreement: Mean rank correlation (Spearman) with the float network over the candidates of each query.
        milliseconds: CPU time for a pair on one thread, a pair at a time, of these candidates.
        megabytes: Size of the graph.
    """

    kept: tuple[str, ...]
    agreement: float
    milliseconds: float
    megabytes: float


def rank_agreement(ours: Sequence[FloatArray], theirs: Sequence[FloatArray]) -> float:
    """Mean Spearman correlation of two scorings of the same candidates, query by query.

    Queries with fewer than two candidates, and those whose candidates one side scores all alike, say nothing and are
    left out.

    Raises:
        ValueError: No query is left.
    """
    correlations = []
    for one, other in zip(ours, theirs, strict=True):
        if len(one) > 1 and np.ptp(one) > 0 and np.ptp(other) > 0:
            correlations.append(float(np.corrcoef(_ranks(one), _ranks(other))[0, 1]))
    if not correlations:
        raise ValueError("agreement is measured on queries with at least two candidates that score differently")
    return float(np.mean(correlations))


def _ranks(values: FloatArray) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: NDArray[np.float64] = ((ends - counts + ends - 1) / 2.0)[where]
    return shared


def float_scores(
    parameters: Parameters, shape: NetworkShape, queries: Sequence[Sequence[TokenPair]]
) -> list[FloatArray]:
    """Logits of the candidates of each query in full precision."""
    import torch

    scores = []
    with torch.no_grad():
        for pairs in queries:
            arrays = (torch.from_numpy(array) for array in pad_pairs(pairs))
            scores.append(score_pairs(parameters, shape, *arrays)[:, 0].numpy())
    return scores


def quantize_graph(
    source: Path,
    target: Path,
    *,
    per_channel: bool,
    agreement: float,
    reference: Sequence[FloatArray],
    queries: Sequence[Sequence[TokenPair]],
) -> list[Rounding]:
    """Round the matrices of a graph, and take back as little as possible until the ranking agrees with the reference.

    Activations are smoothed first (`smooth_graph`), as half of the queries ask for; the other half measures. With
    every matrix rounded, the agreement is measured. While it is too low, each part of the layers (in all of them
    at once) is tried in float, and the one that helps most stays so.

    Args:
        source: Graph with matrices in float.
        target: Where the rounded one is written.
        per_channel: One scale for each output of a matrix instead of one for the matrix.
        agreement: What is asked for; see `Rounding`.
        reference: Scores of the float network, query by query; empty to round everything unmeasured.
        queries: The candidates that were scored.

    Returns:
        What was tried; the last one was written. Empty when nothing was measured.
    """
    if not queries:
        _round(source, target, per_channel, [])
        return []
    # What the smoothing has seen says nothing about what it does to other candidates.
    seen, queries = (queries[::2], queries[1::2]) if len(queries) > 1 else (queries, queries)
    reference = reference[1::2] if len(reference) > 1 else reference
    smooth = source.with_name(f"smooth-{source.name}")
    smooth_graph(source, smooth, [pair for pairs in seen for pair in pairs][:_MEASURED])
    source, parts = smooth, _parts_of(smooth)

    def attempt(kept: tuple[str, ...]) -> Rounding:
        _round(source, target, per_channel, [node for part in kept for node in parts[part]])
        scores, milliseconds = graph_scores(target, queries)
        return Rounding(kept, rank_agreement(scores, reference), milliseconds, target.stat().st_size / 1e6)

    tried = [attempt(())]
    best = tried[0]
    while best.agreement < agreement and len(best.kept) < len(parts):
        nearer = [attempt((*best.kept, part)) for part in parts if part not in best.kept]
        tried += nearer
        enough = [rounding for rounding in nearer if rounding.agreement >= agreement]
        best = min(enough, key=lambda r: r.milliseconds) if enough else max(nearer, key=lambda r: r.agreement)
    if tried[-1] is not best:
        _round(source, target, per_channel, [node for part in best.kept for node in parts[part]])
        tried.append(best)
    return tried


def _parts_of(path: Path) -> dict[str, list[str]]:
    """Names of the matrix products with constants, by the part of the layer that they belong to."""
    import onnx

    graph = onnx.load(str(path)).graph
    constants = {value.name for value in graph.initializer}
    nodes = [n.name for n in graph.node if n.op_type in ("MatMul", "Gemm") and constants & set(n.input)]
    parts: dict[str, list[str]] = {}
    for place, node in enumerate(nodes):
        regular = len(nodes) % len(_PARTS) == 0
        parts.setdefault(_PARTS[place % len(_PARTS)] if regular else f"matrix {place}", []).append(node)
    return parts


def _round(source: Path, target: Path, per_channel: bool, kept: Sequence[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice on graphs that were not simplified, through the root logger
    try:
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=list(kept),
            per_channel=per_channel,
            reduce_range=False,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(before)
    halve_constants(target)


def halve_constants(path: Path) -> None:
    """Store the large float32 constants of a graph as float16; the runtime widens them when it loads the graph.

    Halves the size of what was not rounded to 8 bits. Weights lose at most 0.05 % of their value, far less than by
    rounding to 8 bits.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    casts = []
    for constant in model.graph.initializer:
        if constant.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        if values.size < _LARGE or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, stored = constant.name, f"{constant.name}_float16"
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


def graph_scores(path: Path, queries: Sequence[Sequence[TokenPair]]) -> tuple[list[FloatArray], float]:
    """Logits of the candidates, one pair at a time, and CPU milliseconds for a pair."""
    refuse_telemetry()
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    scores = []
    started = time.process_time()
    for pairs in queries:
        runs = (session.run(None, dict(zip(INPUTS, pad_pairs([pair]), strict=True)))[0] for pair in pairs)
        scores.append(np.array([run[0, 0] for run in runs], dtype=np.float32))
    spent = time.process_time() - started
    return scores, 1000.0 * spent / sum(map(len, queries))
