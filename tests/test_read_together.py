"""Reading for several queries at once: the same readings as one at a time, in fewer calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from retrieval.config import Config, MemoryStoreConfig, RerankConfig
from retrieval.datatypes import FloatArray
from retrieval.rerankers import OnnxCrossEncoder, Reading, ReadingSpeed, ReadingTask, read_together
from retrieval.rerankers.budget import LANES
from retrieval.rerankers.cross_encoder import TokenPairs
from retrieval.rerankers.pairs import Pair
from retrieval.rerankers.reader import ReadsPairs
from tests.pair_graphs import write_shared_words

WORDS = ["copper", "pipe", "leak", "star", "night", "bread"]


@dataclass
class Pairs:
    """Reads pairs whose texts are their own logits; some words make it fail."""

    name: str = "pairs"
    workers: int = 2
    calls: list[list[tuple[str, int]]] = field(default_factory=list)
    texts: dict[int, tuple[str, list[str]]] = field(default_factory=dict)

    def speed(self) -> ReadingSpeed:
        return ReadingSpeed((1,), (0.001,))

    def prepare(self, query: str, texts: Sequence[str], *, timed: bool = False) -> TokenPairs:
        if query == "unreadable":
            raise RuntimeError("this query cannot be prepared")
        pairs = tuple(Pair([len(self.texts)], [0]) for _ in texts)
        self.texts[len(self.texts)] = query, list(texts)
        return TokenPairs(pairs, (), (0.001,) * len(texts) if timed else ())

    def score_pairs(self, jobs: Sequence[tuple[TokenPairs, Sequence[int]]]) -> list[FloatArray]:
        self.calls.append([(self._of(prepared)[0], len(positions)) for prepared, positions in jobs])
        rows = [[self._of(prepared)[1][position] for position in positions] for prepared, positions in jobs]
        return [np.array([float(text) for text in row], dtype=np.float32) for row in rows]

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return self.score_pairs([(self.prepare(query, texts), range(len(texts)))])[0]

    def _of(self, prepared: TokenPairs) -> tuple[str, list[str]]:
        return self.texts[prepared.pairs[0].ids[0]]


def task(query: str, *texts: object, budget: float | None = None, batch: int = 2) -> ReadingTask:
    first = [1 - place / 100 for place in range(len(texts))]
    return ReadingTask(query, [str(text) for text in texts], first, 0.4, 5, budget_ms=budget, batch_size=batch)


def test_the_stand_in_is_one_that_reads_pairs() -> None:
    assert isinstance(Pairs(), ReadsPairs)
    assert not isinstance(object(), ReadsPairs)


def test_a_batch_of_every_query_goes_in_one_call() -> None:
    reranker = Pairs()
    tasks = [task("a", 1, 2, 3), task("b", 4, 5, 6, 7, 8), task("c", 9)]
    readings = list(read_together(tasks, reranker))
    assert [reading.logits for reading in readings] == [(1, 2, 3), (4, 5, 6, 7, 8), (9,)]
    assert reranker.calls == [[("a", 2), ("b", 2), ("c", 1)], [("a", 1), ("b", 2)], [("b", 1)]]


def test_they_are_taken_as_they_are_needed_and_given_in_their_order() -> None:
    taken = 0

    def tasks() -> Iterator[ReadingTask]:
        nonlocal taken
        for number in range(20):
            taken += 1
            yield task(str(number), *range(1 + number % 3))

    readings = read_together(tasks(), Pairs())
    assert next(readings).logits == (0,)
    assert taken <= LANES
    assert [len(reading.logits) for reading in readings] == [1 + number % 3 for number in range(1, 20)]


@pytest.mark.parametrize("bad", ["nan", "not a number"])
def test_a_query_that_fails_takes_no_other_with_it(bad: str) -> None:
    tasks = [task("a", 1, 2, 3), task("b", 4, bad), task("unreadable", 1), task("c", 5, 6), task("d")]
    readings = list(read_together(tasks, Pairs()))
    assert [reading.stopped for reading in readings] == ["complete", "off", "off", "complete", "off"]
    assert [reading.logits for reading in readings[::3]] == [(1, 2, 3), (5, 6)]
    warned = [reading.warning for reading in readings]
    assert warned[0] is warned[3] is warned[4] is None
    for number in (1, 2):
        assert readings[number].scores == tuple(tasks[number].first_stage)
        assert str(warned[number]).startswith("not reranked, pairs failed with ")


def test_a_budget_pays_for_its_own_query_only() -> None:
    reranker = Pairs()
    tasks = [task("a", 1, 2, budget=1000.0), task("b", 3, 4), task("c", 5, 6, budget=1000.0)]
    readings = list(read_together(tasks, reranker))
    assert [reading.logits for reading in readings] == [(1, 2), (3, 4), (5, 6)]
    assert sorted(reranker.calls) == [[("a", 2)], [("b", 2)], [("c", 2)]]


def test_readings_are_those_of_one_query_at_a_time(tmp_path: Path) -> None:
    folder = write_shared_words(tmp_path / "model")
    generator = np.random.default_rng(0)

    def some(count: int) -> list[str]:
        return [" ".join(generator.choice(WORDS, size=generator.integers(0, 6))) for _ in range(count)]

    tasks = [
        ReadingTask(
            query,
            texts,
            [1 - place / 40 for place in range(len(texts) + 5)],
            0.4,
            3,
            twins=[(0, len(texts) + 2)] if texts else [],
            beyond={len(texts) + 2: "copper copper pipe"} if texts else {},
            batch_size=int(generator.integers(1, 6)),
        )
        for query, texts in zip(
            some(12), [some(count) for count in (0, 1, 3, 20, 7, 0, 2, 9, 30, 4, 5, 6)], strict=True
        )
    ]
    alone: list[Reading] = [next(read_together([one], OnnxCrossEncoder(folder, threads=1))) for one in tasks]
    for reranker in (OnnxCrossEncoder(folder, threads=3), OnnxCrossEncoder(folder, cache_bytes=10_000)):
        assert list(read_together(tasks, reranker)) == alone
    assert any(reading.stopped == "settled" for reading in alone)


def test_searching_for_many_gives_what_each_search_gives() -> None:
    config = Config(store=MemoryStoreConfig(), rerank=RerankConfig(early_stop=0.3, batch_size=2, cache_mb=0))
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest([(f"d{number}", f"{word} {other}") for number, (word, other) in enumerate(_phrases())])
        queries = ["leaking copper pipe", "", "bread at night", "stars", "bread at night"]
        together = pipeline.search_many(queries)
        alone = [pipeline.search(query) for query in queries]
        assert [(one.hits, one.reranked, one.stopped) for one in together] == [
            (one.hits, one.reranked, one.stopped) for one in alone
        ]
        shares = {results.timings for results in together}
        assert len(shares) == 1


def _phrases() -> list[tuple[str, str]]:
    return [(f"{word}s are seen", f"with {other} in it") for word in WORDS for other in WORDS]
