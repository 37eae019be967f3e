"""What a person should know about a result: nothing to search for, a negation, what was left out or not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.confidence import Confidence, reaches
from pipelines.search_options import SearchOptions
from retrieval.datatypes import Hit
from retrieval.rerankers import Reading, Threshold


@dataclass(frozen=True, slots=True)
class Cautions:
    """What one search knows before it looks at its hits.

    Args:
        query: The query.
        cues: Its words that negate.
        depth: How many candidates the cross-encoder might read; 0 when it is off.
        options: What was asked for.
        confidence: What logits mean.
        least: Probability that a hit needs; ``None`` when it needs none.
    """

    query: str
    cues: Sequence[str]
    depth: int
    options: SearchOptions
    confidence: Confidence
    least: float | None

    def of(self, candidates: int, reading: Reading, best: Sequence[Hit], hits: Sequence[Hit]) -> tuple[str, ...]:
        """Sentences for a person.

        Args:
            candidates: How many the first stage found.
            reading: What came of reading.
            best: What would be shown if every hit were good enough.
            hits: What is shown.
        """
        return (*self._of_query(candidates, reading), *self._of_probabilities(best, hits))

    def _of_query(self, candidates: int, reading: Reading) -> Iterator[str]:
        if not self.query.strip():
            yield "the query is empty"
        elif not candidates:
            yield "nothing matches: no word of the query is in the index, or the filter leaves nothing"
        if self.cues and candidates:
            words = ", ".join(repr(cue) for cue in self.cues)
            seen = f"may read {self.depth} candidates for it, twice as many" if reading.reranked else "did not read"
            yield f"the query says {words}: the first stage cannot see negation, and the cross-encoder {seen}"
        if reading.warning is not None:
            yield reading.warning

    def _of_probabilities(self, best: Sequence[Hit], hits: Sequence[Hit]) -> Iterator[str]:
        if self.confidence.warning is not None:
            yield self.confidence.warning
        if self.options.min_score and not self.depth:
            yield f"the configured min_score {self.options.min_score} is not applied: the cross-encoder is off"
        unread = sum(hit.probability is None for hit in best)
        if self.least is not None and unread:
            yield (
                f"min_score leaves out {unread} of the best {len(best)} hits, which the cross-encoder did not read: "
                "they have no probability"
            )
        highest = max((hit.probability for hit in best if hit.probability is not None), default=None)
        if highest is None:
            return
        threshold = self.confidence.threshold
        if threshold is not None and highest < threshold.probability:
            yield (
                f"no good answer: the best probability {highest:.2f} is below the threshold of the index, "
                f"{threshold.probability:.2f}"
            )
        elif self.least is not None and not hits:
            yield f"no hit reaches min_score {self.least:.2f}: the best probability is {highest:.2f}"


def answered(best: Sequence[Hit], hits: Sequence[Hit], threshold: Threshold | None) -> bool | None:
    """Whether a hit is a good answer; ``None`` without a threshold, or when nothing that could be shown was read.

    Args:
        best: What would be shown if every hit were good enough.
        hits: What is shown.
        threshold: Where a good answer begins.
    """
    if threshold is None or all(hit.probability is None for hit in best):
        return None
    return any(reaches(hit.probability, threshold.probability) for hit in hits)
