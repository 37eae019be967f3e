"""Why a query finds what it finds: which of its words the arms know, and which words of a passage match them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from retrieval.datatypes import Results
from retrieval.protocols import Encoder, SparseEncoder

if TYPE_CHECKING:
    from pipelines.search_options import SearchArguments
    from pipelines.two_stage import TwoStagePipeline

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """The different words of a query, in their order, as the two arms see them.

    Args:
        known: The static encoder has a vector for them.
        unknown: It has none; only BM25 can match them.
        ignored: BM25 ignores them as stop words; only the static encoder sees them.
    """

    known: tuple[str, ...]
    unknown: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that decided over the ranking of one query.

    Args:
        results: The candidates of the first stage in final order, passage by passage.
        terms: The words of the query.
        matched: For each hit the words of its passage that BM25 takes for words of the query, in order of appearance.
    """

    results: Results
    terms: QueryTerms
    matched: tuple[tuple[str, ...], ...]


def explain(pipeline: TwoStagePipeline, query: str, top_k: int | None, arguments: SearchArguments) -> Explanation:
    """Search and tell why.

    Args:
        pipeline: Open pipeline.
        query: The query.
        top_k: How many candidates are told about; ``None`` for all of them.
        arguments: Keyword arguments of `TwoStagePipeline.search`; ``group_by`` is ``passage`` here.

    Raises:
        ValueError: An argument is out of range.
        StoreError: The store failed or the filter is not usable.
    """
    if top_k is None:
        top_k = arguments.get("candidates") or pipeline.config.first_stage.candidates
    passages = cast("SearchArguments", {**arguments, "group_by": "passage"})
    results = pipeline.search_many([query], top_k, **passages)[0]
    matched = []
    for hit in results:
        spans = matched_spans(pipeline.sparse, query, hit.text)
        matched.append(tuple(dict.fromkeys(hit.text[start:end] for start, end in spans)))
    return Explanation(results, query_terms(pipeline.encoder, pipeline.sparse, query), tuple(matched))


def query_terms(encoder: Encoder, sparse: SparseEncoder, query: str) -> QueryTerms:
    """Tell the words of a query that an arm knows from those that it does not."""
    words = list(dict.fromkeys(match.group() for match in _WORD.finditer(query)))
    if not words:
        return QueryTerms((), (), ())
    known = [bool(row.any()) for row in encoder.encode_queries(words)]
    weights = sparse.encode_queries(words)
    return QueryTerms(
        known=tuple(word for word, is_known in zip(words, known, strict=True) if is_known),
        unknown=tuple(word for word, is_known in zip(words, known, strict=True) if not is_known),
        ignored=tuple(word for word, weight in zip(words, weights, strict=True) if not len(weight.indices)),
    )


def matched_spans(sparse: SparseEncoder, query: str, text: str) -> list[tuple[int, int]]:
    """Where the words of a text stand that BM25 takes for words of the query: ``(start, end)`` in order."""
    (weights,) = sparse.encode_queries([query])
    wanted = set(weights.indices.tolist())
    matches = list(_WORD.finditer(text))
    words = list(dict.fromkeys(match.group() for match in matches))
    terms = _terms(sparse, words)
    return [match.span() for match in matches if wanted & terms[match.group()]]


def _terms(sparse: SparseEncoder, words: Sequence[str]) -> dict[str, set[int]]:
    return {
        word: set(vector.indices.tolist()) for word, vector in zip(words, sparse.encode_queries(words), strict=True)
    }
