"""Entries of several words in a table that is there already, with vectors from a teacher that reads them in context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import AddedToken, Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.training.table import StaticTable
from retrieval.training.teacher import Teacher

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""

_AROUND = 90
_LEAST_SEEN = 3
_BLOCK = 256
_RIDGE = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class PhraseContexts:
    """How a teacher reads phrases, and single tokens around them.

    Args:
        phrases: The phrases that were found.
        states: float32 (phrases, width), the mean state of a phrase's tokens over its places.
        tokens: Single tokens that were seen at least three times.
        token_states: float32 (tokens, width), the mean state of each.
        seen: float32 (tokens,), how often each was seen.
    """

    phrases: list[str]
    states: FloatArray
    tokens: list[str]
    token_states: FloatArray
    seen: FloatArray


def add_phrases(table: StaticTable, phrases: Sequence[str], vectors: FloatArray) -> StaticTable:
    """A table in which each phrase is one token with a vector of its own.

    A phrase is found where its words stand with one space between them, as the tokenizer normalizes both, and where
    neither end is within a word. Of phrases that begin at the same place the longest is taken. `StaticEncoder`,
    Model2Vec and sentence-transformers read such tokens alike.

    Args:
        table: It is not changed.
        phrases: Each different; one that the table has already gets the new vector.
        vectors: float32 (phrases, dim), as they are added up with the rows of the table.

    Raises:
        ValueError: Vectors do not fit or are not finite, the table has rows without a token, or a phrase is empty,
            occurs twice, or is a token of a single word.
    """
    contents = [" ".join(phrase.split()) for phrase in phrases]
    tokenizer = Tokenizer.from_str(table.tokenizer.to_str())
    rows = np.asarray(table.vectors, np.float32)
    if vectors.shape != (len(contents), rows.shape[1]) or not np.isfinite(vectors).all():
        raise ValueError(
            f"{len(contents)} phrases need finite vectors of shape {(len(contents), rows.shape[1])}, "
            f"not {vectors.shape}"
        )
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if len(rows) != len(vocabulary):
        raise ValueError(f"the table has {len(rows)} rows for {len(vocabulary)} tokens; it needs one for each")
    known = {token.content: at for at, token in tokenizer.get_added_tokens_decoder().items()}
    _check(contents, vocabulary, known)
    new = [content for content in contents if content not in known]
    tokenizer.add_tokens([AddedToken(content, single_word=True, normalized=True) for content in new])
    grown = np.concatenate([rows, np.zeros((len(new), rows.shape[1]), np.float32)])
    grown[[tokenizer.token_to_id(content) for content in contents]] = vectors
    return StaticTable(grown, tokenizer, table.given_rules)


def read_phrases_in_context(
    teacher: Teacher,
    table: StaticTable,
    texts: Iterable[str],
    phrases: Sequence[str],
    *,
    places: int = 4,
    on_progress: Progress | None = None,
) -> PhraseContexts:
    """Let a teacher read phrases where they stand in texts.

    Args:
        teacher: The teacher.
        table: Its tokenizer decides where a phrase stands.
        texts: Read until every phrase has been found often enough.
        phrases: As for `add_phrases`.
        places: Places that are read of each phrase; about 90 characters on either side are read with it.
        on_progress: Told how many places the teacher has read.
    """
    found = _find(table, texts, phrases, places)
    jobs = sorted(((text, start, end, at) for at, rows in found.items() for text, start, end in rows), key=_length)
    width = teacher.width
    sums, counts = np.zeros((len(phrases), width)), np.zeros(len(phrases))
    token_sums: dict[int, FloatArray] = defaultdict(lambda: np.zeros(width, np.float32))
    token_counts: dict[int, int] = defaultdict(int)
    for done, ((_, start, end, at), read) in enumerate(
        zip(jobs, teacher.states([text for text, _, _, _ in jobs]), strict=True), 1
    ):
        inside = (read.spans[:, 0] >= start) & (read.spans[:, 1] <= end)
        if inside.any():
            sums[at] += read.states[inside].mean(axis=0)
            counts[at] += 1
        for token, state in zip(read.ids[~inside].tolist(), read.states[~inside], strict=True):
            token_sums[token] += state
            token_counts[token] += 1
        if on_progress is not None and done % _BLOCK == 0:
            on_progress(done, len(jobs))
    usable = [token for token, count in token_counts.items() if count >= _LEAST_SEEN]
    rows = np.flatnonzero(counts).tolist()
    seen = np.array([token_counts[token] for token in usable], np.float32)
    return PhraseContexts(
        phrases=[phrases[row] for row in rows],
        states=(sums[rows] / counts[rows, None]).astype(np.float32),
        tokens=[teacher.token(token) for token in usable],
        token_states=np.array([token_sums[token] for token in usable], np.float32).reshape(-1, width) / seen[:, None],
        seen=seen,
    )


def contextual_vectors(table: StaticTable, contexts: PhraseContexts, share: float = 0.3) -> FloatArray:
    """Vectors for `add_phrases`: between the sum over a phrase's words and what the teacher sees in it.

    The teacher's space is turned into that of the table by least squares over the single tokens that both know, so that
    the table may have been trained after it was distilled. What the teacher sees is brought to the length of the sum.

    Args:
        table: The table.
        contexts: From `read_phrases_in_context`.
        share: Of the teacher, 0 to 1; with 0 every text keeps its vector.

    Returns:
        float32 (phrases, dim).

    Raises:
        ValueError: No token of the contexts is in the table, or ``share`` is not within 0 and 1.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is 0 to 1, not {share}")
    sums = np.stack([table.vectors[ids].sum(axis=0) for ids in split_phrases(table, contexts.phrases)])
    vocabulary = table.tokenizer.get_vocab(with_added_tokens=False)
    unknown = table.unknown_id
    both = [at for at, token in enumerate(contexts.tokens) if vocabulary.get(token, unknown) != unknown]
    if not both:
        raise ValueError("the teacher and the table have no token in common; take the teacher of the table")
    known = contexts.token_states[both].astype(np.float64)
    rows = table.vectors[[vocabulary[contexts.tokens[at]] for at in both]].astype(np.float64)
    weights = np.sqrt(np.minimum(contexts.seen[both], 50.0))
    middle, target = np.average(known, axis=0, weights=weights), np.average(rows, axis=0, weights=weights)
    weighted = (known - middle) * weights[:, None]
    square = weighted.T @ weighted
    ridge = _RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    turned = np.linalg.solve(square + ridge, weighted.T @ ((rows - target) * weights[:, None]))
    seen = (contexts.states - middle) @ turned + target
    seen *= np.linalg.norm(sums, axis=1, keepdims=True) / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)
    vectors: FloatArray = ((1.0 - share) * sums + share * seen).astype(np.float32)
    return vectors


Place = tuple[str, int, int]


def _length(job: tuple[str, int, int, int]) -> tuple[int, str, int]:
    return len(job[0]), job[0], job[3]


def _find(table: StaticTable, texts: Iterable[str], phrases: Sequence[str], places: int) -> dict[int, list[Place]]:
    """Up to so many places of each phrase by its number: a stretch of text, and the phrase's span within it."""
    zeros = np.zeros((len(phrases), table.vectors.shape[1]), np.float32)
    tokenizer = add_phrases(table, phrases, zeros).tokenizer
    numbers = {tokenizer.token_to_id(" ".join(phrase.split())): at for at, phrase in enumerate(phrases)}
    found: dict[int, list[Place]] = defaultdict(list)
    batch: list[str] = []

    def look() -> None:
        for text, encoding in zip(batch, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True):
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                at = numbers.get(token)
                if at is not None and len(found[at]) < places:
                    found[at].append(_stretch(text, start, end))

    for text in texts:
        batch.append(text.encode("utf-8", "replace").decode())
        if len(batch) == _BLOCK:
            look()
            batch = []
            if len(found) == len(phrases) and all(len(rows) >= places for rows in found.values()):
                return found
    look()
    return found


def _stretch(text: str, start: int, end: int) -> Place:
    left, right = max(0, start - _AROUND), min(len(text), end + _AROUND)
    left = text.rfind(" ", 0, left + 1) + 1 if left else 0
    right = text.find(" ", right) if text.find(" ", right) > 0 else len(text)
    return text[left:right], start - left, end - left


def split_phrases(table: StaticTable, phrases: Sequence[str]) -> list[list[int]]:
    """The tokens that the words of each phrase have in the table, one by one."""
    words = [word for phrase in phrases for word in phrase.split()]
    ids = dict(zip(words, table.tokenize(words), strict=True))
    return [[token for word in phrase.split() for token in ids[word]] for phrase in phrases]


def _check(contents: Sequence[str], vocabulary: dict[str, int], known: dict[str, int]) -> None:
    seen: set[str] = set()
    for content in contents:
        if not content:
            raise ValueError("a phrase is empty")
        if content in seen:
            raise ValueError(f"the phrase {content!r} occurs twice")
        if content in vocabulary and content not in known:
            raise ValueError(f"{content!r} is a token already; change its row of the table instead")
        seen.add(content)
