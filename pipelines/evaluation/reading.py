"""Would the cross-encoder have put a document into the top, had it read it, or read another part of it?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipelines.evaluation.traces import QueryTrace, TracedPassage
from pipelines.points import readable_text
from retrieval.config import RerankConfig
from retrieval.protocols import Encoder, Reranker, Store
from retrieval.rerankers import choose_windows, windows_of

Part = tuple[TracedPassage, tuple[int, int]]


class SecondLook:
    """Reads what was not read.

    Everything else keeps its score: what other documents would gain in the same way is not known, so that a yes says
    that the document may come into the top, and a no that it does not.

    Args:
        encoder: Static encoder of the index.
        store: Store of the index.
        reranker: The cross-encoder.
        settings: Window and weight as they were searched with.
    """

    def __init__(self, encoder: Encoder, store: Store, reranker: Reranker, settings: RerankConfig) -> None:
        self._encoder = encoder
        self._store = store
        self._reranker = reranker
        self._settings = settings

    def lifted(self, query: str, trace: QueryTrace, documents: Sequence[str]) -> frozenset[str]:
        """Documents that one more reading would have lifted over the last place of the top.

        Of a document that was read, the other windows of these passages are read; of one that was not, its candidates
        as a search would read them.

        Args:
            query: Text of the query.
            trace: Its search.
            documents: Relevant candidates that are not in the top.

        Raises:
            StoreError: The store failed.
            ModelError: The cross-encoder cannot be used.
        """
        wanted = set(documents)
        passages = [passage for passage in trace.passages if passage.document in wanted]
        read = {passage.document for passage in passages if passage.read is not None}
        passages = [one for one in passages if one.read is not None or one.document not in read]
        payloads = {point.id: point.payload for point in self._store.get([one.id for one in passages])}
        parts = self._parts(query, [one for one in passages if one.id in payloads], payloads)
        if not parts:
            return frozenset()
        texts = [readable_text(payloads[one.id], payloads[one.id]["text"][start:end]) for one, (start, end) in parts]
        logits = self._reranker.score(query, texts).tolist()
        return frozenset(
            one.document
            for (one, _), logit in zip(parts, logits, strict=True)
            if final_score(one.first, logit, self._settings.first_stage_weight) > trace.bar
        )

    def _parts(
        self, query: str, passages: Sequence[TracedPassage], payloads: Mapping[str, Mapping[str, object]]
    ) -> list[Part]:
        words = self._settings.window_words
        unread = [one for one in passages if one.read is None]
        vector = self._encoder.encode_queries([query])[0]
        chosen = choose_windows(vector, [str(payloads[one.id]["text"]) for one in unread], self._encoder, words)
        parts: list[Part] = list(zip(unread, chosen, strict=True))
        for one in passages:
            if one.read is not None and words is not None:
                windows = windows_of(str(payloads[one.id]["text"]), words)
                parts += [(one, window) for window in windows if window != one.read]
        return parts


def final_score(first: float, logit: float, first_stage_weight: float) -> float:
    """The score of a candidate that was read, as `retrieval.rerankers.read_candidates` has it.

    Args:
        first: Scaled score of the first stage.
        logit: Of the cross-encoder.
        first_stage_weight: Share of the first stage.
    """
    sigmoid = 1 / (1 + math.exp(-max(-700.0, logit)))
    return first_stage_weight * first + (1 - first_stage_weight) * sigmoid
