"""The passages of a small index with their vectors, as two files that a page in the browser can read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from retrieval.datatypes import FloatArray
from retrieval.errors import StoreError

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline

FORMAT = "two-stage-passages"
TEXTS, VECTORS = "passages.json", "passages.safetensors"


@dataclass(frozen=True, slots=True)
class ExportedPassages:
    """What was written of an index.

    Args:
        documents: Documents.
        passages: Passages.
        lowest_cosine: Between a passage's vector and what was stored of it, the worst of all.
    """

    documents: int
    passages: int
    lowest_cosine: float


def export_passages(pipeline: TwoStagePipeline, folder: Path, *, limit: int) -> ExportedPassages:
    """Write ``passages.json`` and ``passages.safetensors``: texts, and int8 vectors with one scale each.

    Passages without a dense vector are left out, because only that is searched. Where a document lies on this
    machine is not written.

    Args:
        pipeline: An open index.
        folder: Existing folder.
        limit: An index with more passages is refused.

    Raises:
        ValueError: ``limit`` is below 1, or the index is larger.
        StoreError: The index is empty, or the store failed.
    """
    if limit < 1:
        raise ValueError(f"the limit of passages is at least 1, not {limit}")
    with pipeline.reading() as serving:
        count = serving.store.count()
        if count > limit:
            raise ValueError(
                f"{serving.store.location} has {count:,} passages, more than the {limit:,} that a page should load; "
                "raise the limit with --max-passages if it may"
            )
        points = sorted(_points(serving.store.scan(vectors=["dense"])), key=lambda point: point[0])
    if not points:
        raise StoreError(f"{pipeline.store.location} has no passage with a vector; there is nothing to export")
    vectors = np.stack([vector for _, _, vector in points])
    rows, scales = _rounded(vectors)
    save_file({"vectors": rows, "scales": scales}, str(folder / VECTORS))
    (folder / VECTORS).chmod(0o644)
    content = {
        "format": FORMAT,
        "version": 1,
        "encoder": str(pipeline.encoder.fingerprint),
        "dim": int(vectors.shape[1]),
        "passages": [passage for _, passage, _ in points],
    }
    (folder / TEXTS).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace")
    stored = rows * scales[:, None]
    cosines = (vectors * stored).sum(axis=1) / np.maximum(np.linalg.norm(stored, axis=1), 1e-12)
    documents = len({key for (key, _), _, _ in points})
    return ExportedPassages(documents, len(points), float(cosines.min()))


def _points(scan: Iterator[Any]) -> Iterator[tuple[tuple[str, int], dict[str, Any], FloatArray]]:
    for point in scan:
        if point.dense is None:
            continue
        payload = point.payload
        passage = {
            "id": payload["document_id"],
            "title": payload["title"],
            "headings": payload.get("headings", []),
            "text": payload["text"],
        }
        yield (str(payload["document"]), int(payload["index"])), passage, point.dense


def _rounded(vectors: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    scales = np.abs(vectors).max(axis=1) / 127
    safe = np.where(scales > 0, scales, 1)
    return np.rint(vectors / safe[:, None]).astype(np.int8), scales.astype(np.float32)
