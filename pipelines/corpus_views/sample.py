"""Documents or passages of an index with one vector each, all of them or a uniform sample."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from retrieval.datatypes import Filter, FloatArray

if TYPE_CHECKING:
    from pipelines.progress import StepCallback
    from retrieval.protocols import Store

_TEXT = 2_000
_START = 220


@dataclass(frozen=True, slots=True)
class Item:
    """A document or a passage.

    Args:
        document_id: Id of the document.
        index: Position of the passage; ``None`` for a document.
        title: Title of the document.
        text: Beginning of the text, for labels.
        start: Less of it, to be shown.
    """

    document_id: str
    index: int | None
    title: str
    text: str
    start: str


def sample_items(
    store: Store,
    *,
    by: Literal["document", "passage"],
    limit: int,
    seed: int,
    where: Filter | None,
    on_progress: StepCallback,
) -> tuple[list[Item], FloatArray, int]:
    """Read an index twice: once for what there is, once for the texts and vectors of the sample.

    Args:
        store: Open store.
        by: ``document`` for the mean over the vectors of its passages, at unit length, or ``passage``.
        limit: Size of the sample.
        seed: Of the choice.
        where: Filter.
        on_progress: Called while reading.

    Returns:
        The items in a stable order, their vectors (items, dim) of unit length, and how many there are in all.
    """
    names: dict[str, None] = {}
    for point in store.scan(where, payload=["document"]):
        names.setdefault(str(point.payload["document"]) if by == "document" else point.id)
    ordered = sorted(names)
    chosen = ordered if len(ordered) <= limit else sorted(random.Random(seed).sample(ordered, limit))
    rows = {name: row for row, name in enumerate(chosen)}
    items: list[Item | None] = [None] * len(chosen)
    sums: FloatArray | None = None
    done, total = 0, store.count(where)
    for point in store.scan(where, vectors=["dense"]):
        done += 1
        if done % 1000 == 0:
            on_progress("reading", done, total)
        payload = point.payload
        row = rows.get(str(payload["document"]) if by == "document" else point.id)
        if row is None:
            continue
        if point.dense is not None:
            if sums is None:
                sums = np.zeros((len(chosen), len(point.dense)), np.float32)
            sums[row] += point.dense
        if by == "passage" or items[row] is None or payload["index"] == 0:
            text = str(payload["text"])
            items[row] = Item(
                document_id=str(payload["document_id"]),
                index=int(payload["index"]) if by == "passage" else None,
                title=str(payload["title"]),
                text=text[:_TEXT],
                start=" ".join(text[: 2 * _START].split())[:_START] + ("…" if len(text) > _START else ""),
            )
    if sums is None:
        return [], np.zeros((0, 0), np.float32), len(ordered)
    norms = np.linalg.norm(sums, axis=1)
    used = [row for row, item in enumerate(items) if item is not None and norms[row] > 0]
    found = [item for row in used if (item := items[row]) is not None]
    return found, (sums[used] / norms[used, None]).astype(np.float32), len(ordered)
