"""Does the index hold what its manifest says, and do the stored vectors belong to the stored texts?"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pipelines.counts import Counts
from pipelines.points import passage_from_payload
from pipelines.progress import StepCallback
from retrieval.datatypes import IndexManifest, StoredPoint
from retrieval.protocols import Encoder, Store

REBUILD = "make the index again with 'retrieval ingest --rebuild PATH'"
REPAIR = "run 'retrieval repair', which keeps the texts and makes the rest again"

_SHOWN = 1_000
_SAMPLE = 200
_TOLERANCE = 1e-4
_PAYLOAD: Mapping[str, type] = {
    "document": str,
    "document_id": str,
    "source": str,
    "hash": str,
    "index": int,
    "text": str,
    "start": int,
    "end": int,
    "title": str,
    "terms": int,
    "run": int,
}
_OPTIONAL: Mapping[str, type] = {"headings": list, "metadata": dict}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, by name.

    Args:
        kind: What it is wrong with.
        name: Path in the index folder, point id, document key, field, or part of the index.
        problem: What is wrong.
        document: Key of the document, where it is about one.
    """

    kind: Literal["file", "passage", "document", "field", "index"]
    name: str
    problem: str
    document: str = ""

    def __str__(self) -> str:
        of = f" of document {self.document}" if self.document and self.kind == "passage" else ""
        return f"{self.kind} {self.name}{of}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What was checked.
        ok: Whether it is as it should be; ``None`` when it could not be checked because something else is wrong.
        detail: What was found.
        remedy: What to do when it is not ok.
        findings: What is wrong one by one, where that was looked for (the first 1,000).
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class Findings:
    """Collects what is wrong for one check."""

    count: int = 0
    first: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Note one; only the first 1,000 are kept."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(finding)

    def check(self, name: str, detail: str, remedy: str = REPAIR) -> Check:
        """The check: not ok where anything was found.

        Args:
            name: What was checked.
            detail: What to say where all is well.
            remedy: What to do otherwise.
        """
        if not self.count:
            return Check(name, True, detail)
        more = f" (and {self.count - 1:,} more)" if self.count > 1 else ""
        return Check(name, False, f"{self.first[0]}{more}", remedy, tuple(self.first))


def examine_contents(
    store: Store, manifest: IndexManifest, encoder: Encoder | None, on_progress: StepCallback
) -> Iterator[Check]:
    """Read the whole index once, and the vectors of an even sample of it.

    Args:
        store: Open store.
        manifest: Its manifest.
        encoder: The encoder that the index was built with; ``None`` leaves the comparison out.
        on_progress: Called while reading.
    """
    counts, incomplete = Counts(), 0
    step = max(1, manifest.passages // _SAMPLE)
    sample: list[str] = []
    for number, point in enumerate(store.scan()):
        if is_complete(point.payload):
            counts.add(point.id, point.payload)
        else:
            incomplete += 1
            counts.passages += 1
            counts.ids ^= uuid.UUID(point.id).int
        if number % step == 0 and len(sample) < _SAMPLE:
            sample.append(point.id)
        if number % 1000 == 0:
            on_progress("reading", number, manifest.passages)
    yield _payloads(counts, incomplete)
    yield _counts(counts, manifest)
    points = [point for point in store.get(sample, vectors=["dense"]) if is_complete(point.payload)]
    yield _vectors(points)
    yield _encoding(points, encoder)


def is_complete(payload: Mapping[str, Any]) -> bool:
    """Whether a payload has all fields of a passage, each of its type."""
    return all(isinstance(payload.get(name), kind) for name, kind in _PAYLOAD.items()) and all(
        isinstance(payload.get(name, kind()), kind) for name, kind in _OPTIONAL.items()
    )


def _payloads(counts: Counts, incomplete: int) -> Check:
    if incomplete:
        return Check("payload", False, f"{incomplete:,} of {counts.passages:,} passages lack a field", REBUILD)
    return Check("payload", True, f"{counts.passages:,} passages have all their fields")


def _counts(counts: Counts, manifest: IndexManifest) -> Check:
    found = counts.as_manifest_fields()
    wrong = [
        f"{name} {value}, the manifest says {getattr(manifest, name)}"
        for name, value in found.items()
        if value != getattr(manifest, name)
    ]
    if not wrong:
        return Check("counts", True, "documents, passages, terms and ids are those of the manifest")
    remedy = REPAIR if manifest.state == "ready" else "run the same 'retrieval ingest' command again"
    return Check("counts", False, "; ".join(wrong), remedy)


def _vectors(points: Sequence[StoredPoint]) -> Check:
    vectors = [point.dense for point in points if point.dense is not None]
    bad = sum(not (np.isfinite(row).all() and abs(float(np.linalg.norm(row)) - 1.0) < _TOLERANCE) for row in vectors)
    if bad:
        detail = f"{bad:,} of {len(vectors):,} sampled vectors are not finite or not of unit length"
        return Check("vectors", False, detail, REPAIR)
    return Check("vectors", True, f"{len(vectors):,} sampled vectors are finite and of unit length")


def _encoding(points: Sequence[StoredPoint], encoder: Encoder | None) -> Check:
    if encoder is None:
        return Check("encoding", None, "not compared, the encoder is another one")
    expected = encoder.encode_documents([passage_from_payload(point.payload).indexed_text for point in points])
    wrong = 0
    for point, row in zip(points, expected, strict=True):
        stored = np.zeros_like(row) if point.dense is None else point.dense
        wrong += not np.allclose(stored, row, atol=_TOLERANCE)
    if wrong:
        detail = f"{wrong:,} of {len(points):,} sampled passages do not get the vector that is stored for them"
        return Check("encoding", False, detail, REPAIR)
    return Check("encoding", True, f"{len(points):,} sampled passages get the vectors that are stored")
