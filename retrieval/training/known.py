"""What is known to answer a query, or repeats it, and so is no negative."""

from __future__ import annotations

import hashlib

from retrieval.training.pairs import Pair

_RUN = 5


class KnownPositives:
    """Which texts and documents answer a query, kept as digests: about 250 bytes for each query."""

    def __init__(self) -> None:
        self._answers: dict[int, tuple[int, ...]] = {}

    def add(self, pair: Pair) -> None:
        """Learn the positive of a pair and the documents that it names."""
        query, texts = _digest(pair.query), (_digest(pair.positive), *map(_document, pair.documents))
        before = self._answers.get(query, ())
        self._answers[query] = before + tuple(text for text in texts if text not in before)

    def answers(self, query: str, text: str, document: str = "") -> bool:
        """Whether a text, or its document, is known to answer a query; case and white space do not count."""
        known = self._answers.get(_digest(query), ())
        return _digest(text) in known or (bool(document) and _document(document) in known)


def shared_runs(first: str, second: str) -> float:
    """Which part of the runs of five words of the shorter text is also in the other; case does not count.

    A text of fewer words is a single run.
    """
    one, other = first.casefold().split(), second.casefold().split()
    length = min(_RUN, len(one), len(other))
    if not length:
        return 0.0
    runs = [{tuple(words[at : at + length]) for at in range(len(words) - length + 1)} for words in (one, other)]
    return len(runs[0] & runs[1]) / min(len(runs[0]), len(runs[1]))


def _digest(text: str) -> int:
    words = " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest())


def _document(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=b"id").digest())
