"""What the table of quantization does once: reading pairs, encoding windows, searching, and measuring a row."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.datatypes import (
    EncoderFingerprint,
    FloatArray,
    Quantization,
    ScoredPoint,
    SearchRequest,
    SparseVector,
    StoredPoint,
)
from retrieval.protocols import Encoder, Reranker, Store

_COMMIT_EVERY = 500


class Measured:
    """What was measured so far, in a file: JSON values by number of dimensions, row and part.

    Args:
        path: SQLite file, created when absent.
        table: What the values are of: collection, split and state.
    """

    def __init__(self, path: Path, table: str) -> None:
        self._table = table
        self._file = sqlite3.connect(path)
        self._file.execute("CREATE TABLE IF NOT EXISTS parts (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def get(self, *key: str) -> Any:
        """The value of a part, ``None`` where it was not measured."""
        found = self._file.execute("SELECT value FROM parts WHERE key = ?", (self._key(key),)).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, value: Any, *key: str) -> None:
        """Keep a value, on disk when this returns."""
        with self._file:
            self._file.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (self._key(key), json.dumps(value)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _key(self, key: Sequence[str]) -> str:
        return json.dumps([self._table, *key])


class RememberedScores:
    """A cross-encoder that reads every pair of query and text once, however often it is asked, and keeps the logits.

    Args:
        reranker: The cross-encoder.
        path: SQLite file for the logits, created when absent.
        model: What tells its logits from those of other models.
    """

    def __init__(self, reranker: Reranker, path: Path, model: str) -> None:
        self._reranker = reranker
        self._model = model.encode()
        self._file = sqlite3.connect(path)
        self._file.execute("CREATE TABLE IF NOT EXISTS logits (pair BLOB PRIMARY KEY, logit REAL) WITHOUT ROWID")
        self._known: dict[bytes, float] = dict(self._file.execute("SELECT pair, logit FROM logits"))
        self._unsaved = 0
        self.read = 0
        """Pairs that the cross-encoder read since this was opened."""

    @property
    def name(self) -> str:
        """Name of the cross-encoder."""
        return self._reranker.name

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Logits in the order of the texts, float32 (texts,); only those that are not known yet are computed."""
        keys = [self._key(query, text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            logits = [float(logit) for logit in self._reranker.score(query, list(new.values()))]
            rows = list(zip(new, logits, strict=True))
            self._known.update(rows)
            self._file.executemany("INSERT OR REPLACE INTO logits VALUES (?, ?)", rows)
            self.read += len(rows)
            self._unsaved += len(rows)
            if self._unsaved >= _COMMIT_EVERY:
                self.save()
        return np.array([self._known[key] for key in keys], np.float32)

    def save(self) -> None:
        """Have everything on disk."""
        self._file.commit()
        self._unsaved = 0

    def close(self) -> None:
        """Save and close the file."""
        self.save()
        self._file.close()

    def _key(self, query: str, text: str) -> bytes:
        digest = hashlib.blake2b(self._model, digest_size=16)
        for part in (query, text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()


class RememberedEncoder:
    """An encoder that encodes every document, or window of one, once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, FloatArray] = {}

    @property
    def dim(self) -> int:
        return self._encoder.dim

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self._encoder.fingerprint

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        return self._encoder.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode_documents(new), strict=True))
        rows = [self._known[text] for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dim), np.float32)

    def count_tokens(self, text: str) -> int:
        return self._encoder.count_tokens(text)


class RememberedStore:
    """A store that is asked once for each payload and BM25 query, and for each dense query until it is switched."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._points: dict[str, StoredPoint] = {}
        self._found: dict[Any, list[ScoredPoint]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def set_quantization(self, quantization: Quantization) -> None:
        self._found = {key: points for key, points in self._found.items() if key[0] == "bm25"}
        self._store.set_quantization(quantization)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        keys = [_request_key(request) for request in requests]
        new = {key: one for key, one in zip(keys, requests, strict=True) if key not in self._found}
        if new:
            self._found.update(zip(new, self._store.search(list(new.values())), strict=True))
        return [self._found[key] for key in keys]

    def get(self, ids: Sequence[str], **what: Any) -> list[StoredPoint]:
        if what:
            return self._store.get(ids, **what)
        new = [name for name in ids if name not in self._points]
        if new:
            self._points.update((point.id, point) for point in self._store.get(new))
        return [self._points[name] for name in ids if name in self._points]


def _request_key(request: SearchRequest) -> tuple[Any, ...]:
    vector, where = request.vector, json.dumps(request.where)
    if isinstance(vector, SparseVector):
        return ("bm25", vector.indices.tobytes(), vector.values.tobytes(), request.limit, where)
    return ("dense", vector.tobytes(), request.limit, request.exact, request.rescore, where)
