"""A next generation of an index: the same passages with the vectors of another encoder, and the way back."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from pipelines.opening import open_adapted
from pipelines.points import passage_from_payload
from retrieval.config import Config
from retrieval.datatypes import IndexManifest, Point
from retrieval.encoders import StaticEncoder
from retrieval.errors import IndexMismatchError, StoreCorruptError, StoreError
from retrieval.manifest import manifest_from_json, same_encoder
from retrieval.models import open_encoder
from retrieval.protocols import Encoder, Store

_POINTS_PER_BATCH = 512
_POINTS_PER_FLUSH = 32_768

CopyCallback = Callable[[int, int], None]
"""Called with how many passages are done, and of how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """A complete generation that is not live yet.

    Args:
        store: Its store.
        encoder: The encoder of its vectors.
        manifest: What the manifest of the index will be.
        encoded: How many passages were encoded for it.
    """

    store: Store
    encoder: Encoder
    manifest: IndexManifest
    encoded: int


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """What a rollback did.

    Args:
        generation: Number of the generation that is live now.
        previous: Number of the one that was live before; another rollback returns to it.
        encoder: Name and digest of the encoder that is live now.
        encoded: Passages encoded anew, because the index had changed since; 0 where the old vectors could be used.
        seconds: Wall-clock time.
    """

    generation: int
    previous: int | None
    encoder: str
    encoded: int
    seconds: float


def fill_generation(
    source: Store,
    target: Store,
    encoder: Encoder,
    manifest: IndexManifest,
    on_progress: CopyCallback,
    *,
    graph: bool,
) -> int:
    """Copy every passage, with BM25 weights and payload as they are and a new dense vector, and check the copy.

    Args:
        source: Open store, whose points do not change meanwhile.
        target: Empty store for vectors of ``encoder``.
        encoder: Makes the new vectors.
        manifest: Manifest of ``source``.
        on_progress: Called after every batch.
        graph: Whether the index is large enough for a graph, which is built then.

    Returns:
        How many passages were copied.

    Raises:
        StoreFullError: Too little disk is left.
        StoreCorruptError: The copy is not complete.
    """
    points = source.scan(vectors=["bm25"])
    done = unflushed = 0
    with target.bulk():
        while batch := list(islice(points, _POINTS_PER_BATCH)):
            texts = [passage_from_payload(point.payload).indexed_text for point in batch]
            dense = encoder.encode_documents(texts)
            known = np.any(dense, axis=1).tolist()
            target.upsert(
                [
                    Point(point.id, row if has_vector else None, point.sparse, point.payload)
                    for point, row, has_vector in zip(batch, dense, known, strict=True)
                ]
            )
            done += len(batch)
            unflushed += len(batch)
            if unflushed >= _POINTS_PER_FLUSH:
                target.flush()
                unflushed = 0
            on_progress(done, manifest.passages)
    if graph or target.quantization.kind != "none":
        target.optimize()
    target.flush()
    _require_complete(target, manifest)
    return done


def _require_complete(store: Store, manifest: IndexManifest) -> None:
    """Read back what was written: all ids, and vectors that are numbers."""
    count = digest = 0
    for point in store.scan(payload=False, vectors=["dense"]):
        count += 1
        digest ^= uuid.UUID(point.id).int
        if point.dense is not None and not np.isfinite(point.dense).all():
            raise StoreCorruptError(f"the new vector of passage {point.id} is not finite; nothing was switched")
    if (count, f"{digest:032x}") != (manifest.passages, manifest.ids_digest):
        raise StoreCorruptError(
            f"the new generation of {store.location} holds {count} passages, the index {manifest.passages}; "
            "nothing was switched; run 'retrieval doctor'"
        )


def previous_generation(store: Store, manifest: IndexManifest, config: Config, on_progress: CopyCallback) -> Generation:
    """The generation before the live one, ready to take its place.

    Where documents came or went since, its vectors are made anew, so that none is lost.

    Args:
        store: Open store of the live generation.
        manifest: Its manifest.
        config: Settings of the index.
        on_progress: Called while vectors are made.

    Raises:
        StoreError: There is no previous generation.
        ModelError: Its encoder cannot be opened any more.
        IndexMismatchError: The model that it was made with is another one now.
    """
    if manifest.previous is None:
        raise StoreError(f"{store.location} has no previous generation to return to")
    before = store.open_generation(manifest.previous)
    try:
        stored = before.read_manifest()
        if stored is None:
            raise StoreCorruptError(f"generation {manifest.previous} of {store.location} has no manifest")
        old = manifest_from_json(stored, store.location)
        encoder = _encoder_of(old, before, config)
        if (old.ids_digest, old.runs, old.passages) == (manifest.ids_digest, manifest.runs, manifest.passages):
            return Generation(
                before, encoder, replace(old, previous=manifest.generation, calibration=manifest.calibration), 0
            )
        graph = manifest.passages >= config.hnsw.threshold
        generation = _made_again(store, manifest, before, old, encoder, on_progress, graph=graph)
    except BaseException:
        before.close()
        raise
    before.close()
    return generation


def _made_again(
    store: Store,
    manifest: IndexManifest,
    before: Store,
    old: IndexManifest,
    encoder: StaticEncoder,
    on_progress: CopyCallback,
    *,
    graph: bool,
) -> Generation:
    target = store.start_generation(encoder.dim)
    try:
        if old.adapted_from is not None:
            shutil.copytree(before.encoder_folder(), target.encoder_folder())
            encoder = StaticEncoder.open(target.encoder_folder())
        encoded = fill_generation(store, target, encoder, manifest, on_progress, graph=graph)
    except BaseException:
        target.abandon()
        raise
    changed = replace(
        manifest,
        generation=target.generation,
        previous=manifest.generation,
        encoder=encoder.fingerprint,
        adapted_from=old.adapted_from,
        dense_weight=old.dense_weight,
    )
    return Generation(target, encoder, changed, encoded)


def _encoder_of(manifest: IndexManifest, store: Store, config: Config) -> StaticEncoder:
    if manifest.adapted_from is not None:
        encoder = open_adapted(store.location, store.encoder_folder())
    else:
        encoder = open_encoder(config.encoder)
    if not same_encoder(encoder.fingerprint, manifest.encoder):
        raise IndexMismatchError(
            f"generation {manifest.generation} of {store.location} was made with encoder {manifest.encoder}, "
            f"and {config.encoder.model!r} is {encoder.fingerprint} now; the live generation stays"
        )
    return encoder
