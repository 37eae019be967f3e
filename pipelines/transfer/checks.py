"""Does a copy of an index hold what its source holds, and does it find the same?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.counts import COUNTED_FIELDS, Counts
from pipelines.index_checks import Check
from pipelines.progress import StepCallback
from retrieval.datatypes import FloatArray, IndexManifest, SearchRequest, SparseVector, StoredPoint
from retrieval.encoders import StaticEncoder
from retrieval.manifest import same_encoder
from retrieval.protocols import Store

AGAIN = "nothing was switched; run 'retrieval doctor' on the source"
LEAST_DENSE_AGREEMENT = 0.9
"""Share of the first ten of a dense search that both must find: approximate search loses some."""
LEAST_BM25_AGREEMENT = 0.5
"""The same for BM25: each shard of a server counts document frequencies of its own passages, few in a small index."""

_SAMPLE = 200
_QUERIES = 40
_TOP = 10
_WINDOW = 50
_TERMS = 6
_EXACT_BELOW = 1_000_000
_TOLERANCE = 1e-5


def check_copy(source: Store, target: Store, manifest: IndexManifest, on_progress: StepCallback) -> Iterator[Check]:
    """Compare all ids, an even sample of the contents, and what a part of the sample finds.

    Args:
        source: Open store.
        target: Its copy.
        manifest: Manifest of the source.
        on_progress: Called while the ids are read.
    """
    counts = Counts()
    sample: list[str] = []
    step = max(1, manifest.passages // _SAMPLE)
    for number, point in enumerate(target.scan(payload=list(COUNTED_FIELDS))):
        counts.add(point.id, point.payload)
        if number % step == 0 and len(sample) < _SAMPLE:
            sample.append(point.id)
        if number % 1000 == 0:
            on_progress("comparing", number, manifest.passages)
    yield _counts(counts, manifest)
    ours, theirs = source.get(sample, vectors=True), target.get(sample, vectors=True)
    yield _contents(ours, theirs)
    exact = manifest.passages < _EXACT_BELOW
    queries = ours[:: max(1, len(ours) // _QUERIES)][:_QUERIES]
    dense: list[FloatArray | SparseVector] = [
        point.dense for point in queries if point.dense is not None and point.dense.any()
    ]
    yield _search("dense search", _agreement(source, target, dense, exact=exact), LEAST_DENSE_AGREEMENT)
    sparse: list[FloatArray | SparseVector] = [_query(point.sparse) for point in queries if point.sparse is not None]
    yield _search("BM25 search", _agreement(source, target, sparse, exact=exact), LEAST_BM25_AGREEMENT)


def check_encoder(encoder: StaticEncoder, manifest: IndexManifest) -> Check:
    """Is the copied encoder the one that made the vectors?"""
    if same_encoder(encoder.fingerprint, manifest.encoder):
        return Check("encoder", True, f"{manifest.encoder.name}@{manifest.encoder.digest}, adapted to the documents")
    return Check("encoder", False, f"the index has {manifest.encoder}, the copy {encoder.fingerprint}", AGAIN)


def _counts(counts: Counts, manifest: IndexManifest) -> Check:
    wrong = [
        f"{name} {value}, the source says {getattr(manifest, name)}"
        for name, value in counts.as_manifest_fields().items()
        if value != getattr(manifest, name)
    ]
    if wrong:
        return Check("counts", False, "; ".join(wrong), AGAIN)
    detail = f"{counts.documents:,} documents, {counts.passages:,} passages, {counts.terms:,} terms, the same ids"
    return Check("counts", True, detail)


def _contents(ours: Sequence[StoredPoint], theirs: Sequence[StoredPoint]) -> Check:
    found = {point.id: point for point in theirs}
    wrong = [point.id for point in ours if point.id not in found or not _same(point, found[point.id])]
    if wrong:
        return Check("contents", False, f"{len(wrong):,} of {len(ours):,} passages differ, {wrong[0]} first", AGAIN)
    return Check("contents", True, f"{len(ours):,} passages have the same vectors, weights and payload")


def _same(one: StoredPoint, other: StoredPoint) -> bool:
    if (one.dense is None, one.sparse is None) != (other.dense is None, other.sparse is None):
        return False
    if one.dense is not None and other.dense is not None and not _close(one.dense, other.dense):
        return False
    return dict(one.payload) == dict(other.payload) and _weights(one.sparse) == _weights(other.sparse)


def _close(one: FloatArray, other: FloatArray) -> bool:
    # An engine may divide a vector by its length once more.
    return one.shape == other.shape and np.allclose(one, other, rtol=0.0, atol=_TOLERANCE)


def _weights(vector: SparseVector | None) -> dict[int, float] | None:
    return None if vector is None else dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def _query(weights: SparseVector) -> SparseVector:
    """The heaviest terms of a passage as a query."""
    chosen = np.sort(np.argsort(-weights.values, kind="stable")[:_TERMS])
    return SparseVector(weights.indices[chosen], np.ones(len(chosen), np.float32))


def _agreement(
    source: Store, target: Store, vectors: Sequence[FloatArray | SparseVector], *, exact: bool
) -> list[float]:
    """For each query the share of the first ten that the source has among its first ten, too."""
    ours = source.search([SearchRequest(vector, _WINDOW, exact=exact) for vector in vectors])
    theirs = target.search([SearchRequest(vector, _TOP, exact=exact) for vector in vectors])
    shares = []
    for expected, found in zip(ours, theirs, strict=True):
        last = min(len(expected), _TOP)
        # What is as good as the tenth may stand in its place.
        least = expected[last - 1].score * (1 - _TOLERANCE) if last else 0.0
        good = {hit.id for hit in expected if hit.score >= least}
        shares.append(sum(hit.id in good for hit in found) / max(last, len(found), 1) if last else float(not found))
    return shares


def _search(name: str, shares: Sequence[float], least: float) -> Check:
    if not shares:
        return Check(name, True, "no passage has such a vector")
    share = float(np.mean(shares))
    detail = f"{len(shares)} queries, {share:.1%} of the first {_TOP} are the same"
    return Check(name, share >= least, detail, "" if share >= least else AGAIN)
