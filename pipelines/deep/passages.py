"""Is every stored passage what its text and its payload say?

An id is made of document, content hash and position; both vectors are made of the text. All of it is made again here
and compared with what is stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.counts import Counts
from pipelines.index_checks import REPAIR, Check, Finding, Findings, is_complete
from pipelines.points import passage_from_payload, passage_id
from retrieval.datatypes import FloatArray, IndexManifest, StoredPoint
from retrieval.encoders import EncodedPassages, encode_passages
from retrieval.protocols import Encoder, SparseEncoder

ROUNDING = 1e-5
"""What two machines may differ in that add the same numbers in another order."""


class PassageChecks:
    """Looks at passages batch by batch.

    Args:
        manifest: Manifest of the index.
        encoder: The encoder of its vectors; ``None`` leaves dense vectors out.
        sparse: The BM25 encoder of its settings; ``None`` leaves BM25 out.
    """

    def __init__(self, manifest: IndexManifest, encoder: Encoder | None, sparse: SparseEncoder | None) -> None:
        self._manifest = manifest
        self._ready = manifest.state == "ready"
        self._encoder, self._sparse = encoder, sparse
        self._counts = Counts()
        self._payloads, self._ids, self._dense, self._bm25 = Findings(), Findings(), Findings(), Findings()
        self._documents: dict[str, tuple[str, bool]] = {}
        self._mixed: set[str] = set()
        self._equal = self._rounded = self._weighted = 0

    def add(self, batch: Sequence[StoredPoint]) -> None:
        """Look at some points, read with payload and both vectors."""
        usable = []
        for point in batch:
            if is_complete(point.payload):
                self._counts.add(point.id, point.payload)
                self._identity(point)
                usable.append(point)
            else:
                self._counts.passages += 1
                self._counts.ids ^= uuid.UUID(point.id).int
                key = str(point.payload.get("document", ""))
                self._payloads.add(Finding("passage", point.id, "its payload lacks a field", key))
        if usable and self._encoder is not None and self._sparse is not None:
            texts = [passage_from_payload(point.payload).indexed_text for point in usable]
            made = encode_passages(self._encoder, self._sparse, texts, self._manifest.average_length)
            for row, point in enumerate(usable):
                self._compare_dense(point, made, row)
                self._compare_bm25(point, made, row)

    def results(self) -> Iterator[Check]:
        """What was found."""
        yield self._payloads.check("payload", f"{self._counts.passages:,} passages have all their fields")
        yield self._counted()
        yield self._identities()
        if self._encoder is None or self._sparse is None:
            yield Check("vectors", None, "not compared, the encoder or BM25 is another one")
            return
        rounded = f", {self._rounded:,} to the last digits" if self._rounded else ""
        yield self._dense.check("vectors", f"{self._equal:,} dense vectors are equal to those of the encoder{rounded}")
        if self._manifest.state == "reweighting":
            yield Check("bm25", None, "not compared, a run was interrupted while it weighed all passages anew")
            return
        length = f"with an average length of {self._manifest.average_length:.1f} terms"
        yield self._bm25.check("bm25", f"{self._weighted:,} rows of weights are those of their texts {length}")

    def _identity(self, point: StoredPoint) -> None:
        payload = point.payload
        key, digest = payload["document"], payload["hash"]
        if passage_id(key, digest, payload["index"]) != point.id:
            problem = f"its id does not belong to content hash {digest} and position {payload['index']}"
            self._ids.add(Finding("passage", point.id, problem, key))
        length = payload["end"] - payload["start"]
        if length != len(payload["text"]):
            problem = f"its text has {len(payload['text']):,} characters, its place in the document {length:,}"
            self._payloads.add(Finding("passage", point.id, problem, key))
        known = self._documents.get(key)
        if known is not None and known[0] != digest:
            self._mixed.add(key)
        self._documents[key] = (digest, payload["index"] == 0 or (known is not None and known[1]))

    def _identities(self) -> Check:
        if self._ready:  # otherwise a document may be there in two versions, or in part
            for key in sorted(self._mixed):
                self._ids.add(Finding("document", key, "there are passages of two versions of it", key))
            for key, (_, has_first) in sorted(self._documents.items()):
                if not has_first:
                    self._ids.add(Finding("document", key, "its first passage is missing", key))
        number = len(self._documents)
        return self._ids.check("ids", f"ids belong to {number:,} documents, their content hashes and positions")

    def _counted(self) -> Check:
        if not self._ready:
            detail = f"{self._counts.passages:,} passages, not compared: a run was interrupted"
            return Check("counts", None, detail)
        return check_counts(self._counts, self._manifest)

    def _compare_dense(self, point: StoredPoint, made: EncodedPassages, row: int) -> None:
        key = point.payload["document"]
        expected, stored = made.dense[row], point.dense
        if stored is None or not made.known[row]:
            if stored is None and not made.known[row]:
                self._equal += 1
            else:
                problem = "it has no dense vector" if stored is None else "it has a dense vector, and no known token"
                self._dense.add(Finding("passage", point.id, problem, key))
        elif np.array_equal(stored, expected):
            self._equal += 1
        elif not np.isfinite(stored).all():
            self._dense.add(Finding("passage", point.id, "its dense vector is not finite", key))
        elif (off := float(np.abs(stored - expected).max())) <= ROUNDING:
            self._equal += 1
            self._rounded += 1
        else:
            problem = f"its dense vector is not that of its text (off by {off:.2g})"
            self._dense.add(Finding("passage", point.id, problem, key))

    def _compare_bm25(self, point: StoredPoint, made: EncodedPassages, row: int) -> None:
        key = point.payload["document"]
        start, end = made.offsets[row], made.offsets[row + 1]
        indices, weights, terms = made.indices[start:end], made.weights[start:end], int(made.lengths[row])
        stored = point.sparse
        if terms != point.payload["terms"]:
            problem = f"its text has {terms:,} terms, its payload says {point.payload['terms']:,}"
        elif stored is None and not len(indices):
            problem = ""
        elif stored is None or not np.array_equal(stored.indices, indices):
            problem = "its BM25 terms are not those of its text"
        elif not _same_weights(stored.values, weights):
            problem = "its BM25 weights are not those of its text"
        else:
            problem = ""
        if problem:
            self._bm25.add(Finding("passage", point.id, problem, key))
        else:
            self._weighted += 1


def _same_weights(stored: FloatArray, weights: FloatArray) -> bool:
    return np.array_equal(stored, weights) or np.allclose(stored, weights, rtol=ROUNDING, atol=0.0)


def check_counts(counts: Counts, manifest: IndexManifest) -> Check:
    """Compare what was counted with what the manifest of a ready index says."""
    wrong = [
        Finding("index", name, f"{name} {value}, the manifest says {getattr(manifest, name)}")
        for name, value in counts.as_manifest_fields().items()
        if value != getattr(manifest, name)
    ]
    if not wrong:
        return Check("counts", True, "documents, passages, terms and ids are those of the manifest")
    return Check("counts", False, "; ".join(item.problem for item in wrong), REPAIR, tuple(wrong))
