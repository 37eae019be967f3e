"""Question in, answer with checked citations out, or a refusal that says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from chat import ChatError, ChatModel
from citations import CitationChecker
from prompt import NO_ANSWER, Source, messages, quoted

from pipelines import TwoStagePipeline
from retrieval.datatypes import Hit, Results
from retrieval.rerankers import RerankerCalibration

Refusal = Literal["nothing fits", "not in the passages"]
"""Nothing in the index comes close enough, and the model was not asked; or the model says that it found no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question.

    Args:
        question: The question.
        text: The answer with its citations checked; empty for a refusal.
        refused: Why there is no answer, ``None`` when there is one.
        probability: That the passages hold the answer; ``None`` when that is not calibrated.
        needed: Below which probability the model is not asked; ``None`` for never.
        sources: The passages, best first.
        cited: Numbers of the passages that the answer cites.
        invented: Numbers that it cites and that were not given.
        warnings: Sentences for a person.
        retrieval_ms: Milliseconds of the search.
        model_ms: Milliseconds until the model had answered, 0 when it was not asked.
    """

    question: str
    text: str
    refused: Refusal | None
    probability: float | None
    needed: float | None
    sources: tuple[Source, ...]
    cited: tuple[int, ...]
    invented: tuple[int, ...]
    warnings: tuple[str, ...]
    retrieval_ms: float
    model_ms: float


class Answerer:
    """Answers questions from an index.

    Args:
        pipeline: The open index.
        model: The language model.
        calibration: Of the cross-encoder; ``None`` asks the model whatever was found.
        needed: Probability below which it is not asked; ``None`` for never.
        passages: How many it gets.
        characters: Of each, at most.
    """

    def __init__(
        self,
        pipeline: TwoStagePipeline,
        model: ChatModel,
        calibration: RerankerCalibration | None,
        *,
        needed: float | None,
        passages: int = 5,
        characters: int = 2000,
    ) -> None:
        self._pipeline = pipeline
        self._model = model
        self._calibration = calibration
        self._needed = needed if calibration is not None else None
        self._passages = passages
        self._characters = characters

    def ask(self, question: str, on_text: Callable[[str], None] = lambda text: None) -> Answer:
        """Answer one question; every question stands for itself.

        Args:
            question: The question.
            on_text: Gets the answer while it is written, citations already checked; never a refusal.

        Raises:
            ChatError: The model could not be asked, or broke off; what came before is with ``on_text``.
            RetrievalError: The index could not be searched.
        """
        results = self._pipeline.search(question, top_k=self._passages, group_by="passage")
        sources = tuple(self._source(hit) for hit in results)
        probability = self._probability(results)
        warnings = list(results.warnings)
        checker = CitationChecker(range(1, len(sources) + 1))
        text, refused, started = "", self._refusal(sources, probability), time.perf_counter()
        if refused is None:
            text, refused = self._written(messages(question, sources), checker, on_text)
            warnings += () if refused else self._doubts(checker)
        model_ms = (time.perf_counter() - started) * 1000
        return Answer(
            question=question,
            text=text,
            refused=refused,
            probability=probability,
            needed=self._needed,
            sources=sources,
            cited=checker.cited,
            invented=checker.invented,
            warnings=tuple(warnings),
            retrieval_ms=results.timings.total,
            model_ms=0.0 if refused == "nothing fits" else model_ms,
        )

    def _source(self, hit: Hit) -> Source:
        probability = None
        if self._calibration is not None and hit.rerank_score is not None:
            probability = float(self._calibration.passages.probability(hit.rerank_score))
        text = quoted(hit, self._characters)
        return Source(hit.rank, hit.document_id, hit.title, hit.source, text, probability)

    def _probability(self, results: Results) -> float | None:
        """``None`` also when the cross-encoder has read nothing: then there is no logit to judge by."""
        logits = [hit.rerank_score for hit in results]
        if self._calibration is None or all(logit is None for logit in logits):
            return None
        return self._calibration.answer_probability(logits)

    def _refusal(self, sources: tuple[Source, ...], probability: float | None) -> Refusal | None:
        """Whether to refuse before the model is asked."""
        unlikely = probability is not None and self._needed is not None and probability < self._needed
        return "nothing fits" if unlikely or not sources else None

    def _written(
        self, asked: list[dict[str, str]], checker: CitationChecker, on_text: Callable[[str], None]
    ) -> tuple[str, Refusal | None]:
        """What the model answers, or that it finds no answer."""
        shown: list[str] = []

        def show(piece: str) -> None:
            if piece:
                shown.append(piece)
                on_text(piece)

        reply = _Reply(self._model.answer(asked))
        for piece in reply:
            show(checker.feed(piece))
        show(checker.finish())
        if reply.refused:
            return "", "not in the passages"
        text = "".join(shown).strip()
        if not text:
            raise ChatError(f"{self._model.place} sent no text; an endpoint without streaming needs --no-stream")
        return text, None

    def _doubts(self, checker: CitationChecker) -> Iterator[str]:
        if checker.invented:
            numbers = ", ".join(map(str, checker.invented))
            yield f"the answer cites what was not given ({numbers}); [?] stands there instead"
        if not checker.cited:
            yield "the answer cites none of the passages: do not rely on it"
        if self._model.end == "length":
            yield "the model stopped because its answer became too long"
        elif self._model.end not in {"stop", None}:
            yield f"the model stopped early ({self._model.end})"
        elif self._model.end is None:
            yield "the stream ended without saying that the answer was complete"


class _Reply:
    """The pieces of a reply, from where it differs from the words that stand for no answer."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.refused = False

    def __iter__(self) -> Iterator[str]:
        held = ""
        for piece in self._pieces:
            held += piece
            begun = held.lstrip()
            if begun.startswith(NO_ANSWER):
                self.refused = True
                return
            if not NO_ANSWER.startswith(begun):
                break
        yield held
        yield from self._pieces
