"""What an index holds, as sums that can be kept up to date without reading it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.protocols import Store

COUNTED_FIELDS = ("document", "index", "terms")
"""Payload fields that `Counts.add` and `Counts.subtract` read."""


@dataclass(slots=True)
class Counts:
    """Documents, passages, BM25 terms and an order-free digest of the point ids."""

    documents: int = 0
    passages: int = 0
    terms: int = 0
    ids: int = 0

    @property
    def ids_digest(self) -> str:
        """XOR of all ids, 32 hex digits."""
        return f"{self.ids:032x}"

    def as_manifest_fields(self) -> dict[str, Any]:
        """The sums under their names in the manifest."""
        return {
            "documents": self.documents,
            "passages": self.passages,
            "terms": self.terms,
            "ids_digest": self.ids_digest,
        }

    def add(self, point_id: str, payload: Mapping[str, Any]) -> None:
        """Count a point that was not there before."""
        self._change(point_id, payload, 1)

    def subtract(self, point_id: str, payload: Mapping[str, Any]) -> None:
        """Uncount a point that was there."""
        self._change(point_id, payload, -1)

    def merge(self, other: Counts) -> None:
        """Count what another writer has counted, from nothing, of other points."""
        self.documents += other.documents
        self.passages += other.passages
        self.terms += other.terms
        self.ids ^= other.ids

    def _change(self, point_id: str, payload: Mapping[str, Any], step: int) -> None:
        self.documents += step * (payload["index"] == 0)
        self.passages += step
        self.terms += step * int(payload["terms"])
        self.ids ^= int(point_id.replace("-", ""), 16)


def repair(store: Store) -> Counts:
    """Remove what an interrupted run left half done, and count the rest.

    A version of a document is complete when its first passage is there. Of each document the complete version of the
    latest run stays.
    """
    complete: dict[str, tuple[int, str]] = {}
    for point in store.scan({"must": [{"key": "index", "match": {"value": 0}}]}, payload=["document", "hash", "run"]):
        key = point.payload["document"]
        complete[key] = max(complete.get(key, (-1, "")), (point.payload["run"], point.payload["hash"]))
    counts = Counts()
    doomed: list[str] = []
    for point in store.scan(payload=["hash", *COUNTED_FIELDS]):
        if complete.get(point.payload["document"], (-1, ""))[1] == point.payload["hash"]:
            counts.add(point.id, point.payload)
        else:
            doomed.append(point.id)
    if doomed:
        store.delete(doomed)
        store.flush()
    return counts
