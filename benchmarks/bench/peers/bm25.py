"""BM25 by bm25s: stems, stop words and parameters as close to ours as it has them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def open_system(*, corpus: str, backend: str = "numpy") -> Bm25s:
    """Read the corpus, JSON Lines with ``text``."""
    with Path(corpus).open(encoding="utf-8") as lines:
        return Bm25s([json.loads(line)["text"] for line in lines], backend)


class Bm25s:
    """Snowball stems of English words, its English stop words, Lucene's formula."""

    def __init__(self, texts: list[str], backend: str) -> None:
        import bm25s
        import Stemmer

        self._bm25s, self._stemmer = bm25s, Stemmer.Stemmer("english")
        self._texts, self._backend = texts, backend
        self._index_of_all: Any = None

    def index(self) -> int:
        """Tokenize and index everything."""
        self._index_of_all = self._bm25s.BM25(backend=self._backend)
        self._index_of_all.index(self._tokens(self._texts), show_progress=False)
        return len(self._texts)

    def _tokens(self, texts: list[str]) -> Any:
        return self._bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)

    def many(self, queries: list[str], k: int = 100) -> list[float]:
        """Milliseconds of each query, one after the other, tokenizing included."""
        times = []
        for query in queries:
            started = time.perf_counter()
            self._index_of_all.retrieve(
                self._tokens([query]), k=min(k, len(self._texts)), show_progress=False, n_threads=1
            )
            times.append((time.perf_counter() - started) * 1000)
        return times
