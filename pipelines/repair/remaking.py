"""A new generation of the passages that are left, with vectors made anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Any

from pipelines.counts import Counts
from pipelines.points import passage_from_payload, passage_id, passage_payload
from pipelines.progress import StepCallback
from pipelines.repair.sources import Reread
from retrieval.datatypes import Point, SparseVector
from retrieval.encoders import encode_passages
from retrieval.protocols import Encoder, SparseEncoder, Store

_PASSAGES_PER_BATCH = 512
_PASSAGES_PER_FLUSH = 32_768
_INCOMPLETE = "incomplete-"

Named = tuple[str, Mapping[str, Any]]
"""A point id and its payload."""


def fill(
    store: Store,
    passages: Iterable[Named],
    encoder: Encoder,
    sparse: SparseEncoder,
    average_length: float,
    total: int,
    tell: StepCallback,
) -> Counts:
    """Write passages with both vectors.

    Args:
        store: Empty store.
        passages: What to write; no id twice.
        encoder: Makes dense vectors.
        sparse: Makes BM25 vectors.
        average_length: BM25 terms per passage.
        total: How many there will be, about.
        tell: Called after every batch.

    Returns:
        What was written.
    """
    counts = Counts()
    stream = iter(passages)
    unflushed = 0
    with store.bulk():
        while batch := list(islice(stream, _PASSAGES_PER_BATCH)):
            points = _points(batch, encoder, sparse, average_length)
            store.upsert(points)
            for point in points:
                counts.add(point.id, point.payload)
            unflushed += len(points)
            if unflushed >= _PASSAGES_PER_FLUSH:
                store.flush()
                unflushed = 0
            tell("making the index again", counts.passages, total)
    store.flush()
    return counts


def _points(batch: list[Named], encoder: Encoder, sparse: SparseEncoder, average_length: float) -> list[Point]:
    texts = [passage_from_payload(payload).indexed_text for _, payload in batch]
    made = encode_passages(encoder, sparse, texts, average_length)
    points = []
    for row, (point_id, payload) in enumerate(batch):
        start, end = int(made.offsets[row]), int(made.offsets[row + 1])
        terms = SparseVector(made.indices[start:end], made.weights[start:end]) if end > start else None
        dense = made.dense[row] if made.known[row] else None
        points.append(Point(point_id, dense, terms, {**payload, "terms": int(made.lengths[row])}))
    return points


def named_passages(
    kept: Iterable[Named], incomplete: Set[str], again: Mapping[str, Reread], run: int
) -> Iterator[Named]:
    """What the new generation holds.

    Documents that were read again replace what was kept of them. What is left of an incomplete document gets another
    content hash, so that the next ingest of its source finds it changed and replaces it as a whole.

    Args:
        kept: Passages that were kept.
        incomplete: Keys of documents of which a passage is lost.
        again: Documents that were read again, by key.
        run: Number of the run that writes those.
    """
    parts: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for point_id, payload in kept:
        key = payload["document"]
        if key in again:
            continue
        if key in incomplete:
            parts[key].append(payload)
        else:
            yield point_id, payload
    for key, payloads in parts.items():
        for index, payload in enumerate(sorted(payloads, key=lambda one: int(one["index"]))):
            digest = f"{_INCOMPLETE}{payload['hash']}"
            yield passage_id(key, digest, index), {**payload, "hash": digest, "index": index}
    for found in again.values():
        for point_id, passage in found.passages.items():
            # Terms are counted when it is encoded.
            yield point_id, passage_payload(found.document, passage, digest=found.digest, terms=0, run=run)
