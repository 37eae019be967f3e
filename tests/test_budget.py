from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.datatypes import FloatArray
from retrieval.ordering import order
from retrieval.protocols import Reranker
from retrieval.rerankers import MOST_TWINS, Reading, read_candidates


@dataclass
class Scripted:
    """A reranker whose texts are their own logits, and which takes a fixed time for each character it reads."""

    seconds_per_character: float = 0.0
    now: float = 0.0
    batches: list[list[str]] = field(default_factory=list)
    name: str = "scripted"

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        self.batches.append(list(texts))
        # 32 is what the loop assumes as the cost of a pair besides its characters.
        self.now += self.seconds_per_character * sum(len(text) + len(query) + 32 for text in texts)
        return np.array([float(text) for text in texts], dtype=np.float32)

    def clock(self) -> float:
        return self.now


def texts_of(*logits: float) -> list[str]:
    return [f"{logit:08.3f}" for logit in logits]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def top(reading: Reading, groups: Sequence[Hashable] | None, top_k: int) -> list[tuple[int, float, float | None]]:
    """What a caller shows: position, score and logit of the best candidate of each group."""
    count = len(reading.scores)
    seen: set[Hashable] = set()
    shown: list[tuple[int, float, float | None]] = []
    for at in order(reading.scores, range(1, count + 1), [str(at) for at in range(count)]):
        group = at if groups is None else groups[at]
        if group not in seen and len(shown) < top_k:
            seen.add(group)
            shown.append((at, reading.scores[at], reading.logits[at]))
    return shown


def test_the_script_is_a_reranker() -> None:
    assert isinstance(Scripted(), Reranker)


def test_scores_by_hand() -> None:
    # First stage 6, 4, 2 is 1, 0.5, 0 after scaling.
    reading = read_candidates("q", texts_of(0, 2, -2), [6.0, 4.0, 2.0], Scripted(), first_stage_weight=0.6, top_k=5)
    assert reading.scores == pytest.approx((0.6 + 0.4 * 0.5, 0.3 + 0.4 * sigmoid(2), 0.4 * sigmoid(-2)))
    assert reading.logits == (0.0, 2.0, -2.0)
    assert (reading.reranked, reading.stopped, reading.warning) == (3, "complete", None)


def test_beyond_the_depth_the_first_stage_counts_alone() -> None:
    reading = read_candidates("q", texts_of(-50), [3.0, 2.0, 1.0], Scripted(), first_stage_weight=0.5, top_k=3)
    assert reading.logits == (-50.0, None, None)
    assert reading.scores == pytest.approx((0.5, 0.25, 0.0))


def test_extreme_logits_do_not_overflow() -> None:
    reading = read_candidates("q", ["1e30", "-1e30"], [1.0, 1.0], Scripted(), first_stage_weight=0.0, top_k=2)
    assert reading.scores == (1.0, 0.0)


def test_candidates_are_read_best_first_in_batches() -> None:
    reranker = Scripted()
    read_candidates("q", list("12345"), [5, 4, 3, 2, 1], reranker, first_stage_weight=0, top_k=5, batch_size=2)
    assert reranker.batches == [["1", "2"], ["3", "4"], ["5"]]


def test_no_text_nothing_read() -> None:
    reading = read_candidates("q", [], [0.9, 0.4], Scripted(), first_stage_weight=0.5, top_k=5)
    assert reading == Reading((None, None), (0.9, 0.4), 0, "off", None)
    assert read_candidates("q", [], [], Scripted(), first_stage_weight=0.5, top_k=5).scores == ()


def test_settled_by_hand() -> None:
    # w = .8: the first is .8 + .2 * 1 = 1; the second can reach .8 * .9 + .2 = .92 and no more.
    reranker = Scripted()
    reading = read_candidates(
        "q", texts_of(100, 100, 100), [1.0, 0.9, 0.0], reranker, first_stage_weight=0.8, top_k=1, batch_size=1
    )
    assert (reading.reranked, reading.stopped) == (1, "settled")
    assert reading.scores == pytest.approx((1.0, 0.72, 0.0))
    assert len(reranker.batches) == 1


def test_not_settled_while_the_next_could_still_win() -> None:
    # The first is .8 + .2 * .5 = .9, the second could reach .92.
    reading = read_candidates(
        "q", texts_of(0, -9, -9), [1.0, 0.9, 0.0], Scripted(), first_stage_weight=0.8, top_k=1, batch_size=1
    )
    assert (reading.reranked, reading.stopped) == (2, "settled")


def test_two_passages_of_one_document_do_not_settle_a_top_of_two() -> None:
    first, texts = [1.0, 0.99, 0.1, 0.0], texts_of(9, 9, 9, 9)
    apart = read_candidates("q", texts, first, Scripted(), first_stage_weight=0.8, top_k=2, batch_size=1)
    assert (apart.reranked, apart.stopped) == (2, "settled")
    together = read_candidates(
        "q", texts, first, Scripted(), first_stage_weight=0.8, top_k=2, batch_size=1, groups=["a", "a", "b", "c"]
    )
    assert (together.reranked, together.stopped) == (3, "settled")


def test_too_few_groups_never_settle() -> None:
    reading = read_candidates(
        "q",
        texts_of(9, 9, 9),
        [1.0, 0.1, 0.0],
        Scripted(),
        first_stage_weight=1,
        top_k=2,
        batch_size=1,
        groups=["a"] * 3,
    )
    assert (reading.reranked, reading.stopped) == (3, "complete")


def test_the_budget_stops_before_the_batch_that_would_not_fit() -> None:
    # A text of 8 characters with a query of 10 costs 50 units, so 50 ms each: 1, then 2 (100 ms), then 50 ms are left.
    reranker = Scripted(seconds_per_character=0.001)
    reading = read_candidates(
        "0123456789",
        texts_of(1, 2, 3, 4, 5, 6),
        [6, 5, 4, 3, 2, 1],
        reranker,
        first_stage_weight=0.1,
        top_k=5,
        budget_ms=200.5,
        batch_size=2,
        clock=reranker.clock,
    )
    assert [len(batch) for batch in reranker.batches] == [1, 2, 1]
    assert (reading.reranked, reading.stopped) == (4, "budget")
    assert reading.logits[4:] == (None, None)
    assert reranker.now <= 0.2005


@dataclass
class Uneven(Scripted):
    """Takes 330 ms for its first batch and 33 ms for every other."""

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        logits = super().score(query, texts)
        self.now += 0.33 if len(self.batches) == 1 else 0.033
        return logits


def test_the_slower_of_the_last_two_batches_is_believed_and_older_ones_forgotten() -> None:
    def read(budget_ms: float) -> int:
        reranker = Uneven()
        return read_candidates(
            "",
            list("54321"),
            [5, 4, 3, 2, 1],
            reranker,
            first_stage_weight=0,
            top_k=5,
            budget_ms=budget_ms,
            batch_size=1,
            clock=reranker.clock,
        ).reranked

    # After the second batch, at 363 ms, a third is still expected to take 330; after the third, at 396, only 33.
    assert read(690) == 2
    assert read(700) == 5


def test_a_long_text_that_would_not_fit_is_not_begun() -> None:
    reranker = Scripted(seconds_per_character=0.001)
    texts = ["1", f"{2:0500d}", "3"]
    reading = read_candidates(
        "", texts, [3, 2, 1], reranker, first_stage_weight=0, top_k=5, budget_ms=300, clock=reranker.clock
    )
    assert (reading.reranked, reading.stopped) == (1, "budget")


def test_the_first_candidate_is_read_whatever_the_budget() -> None:
    reranker = Scripted(seconds_per_character=1.0)
    reading = read_candidates(
        "", ["1", "2"], [2, 1], reranker, first_stage_weight=0, top_k=5, budget_ms=1, clock=reranker.clock
    )
    assert (reading.reranked, reading.stopped) == (1, "budget")


def test_a_generous_budget_reads_all() -> None:
    reranker = Scripted(seconds_per_character=0.001)
    reading = read_candidates(
        "",
        list("123456"),
        range(6, 0, -1),
        reranker,
        first_stage_weight=0,
        top_k=6,
        budget_ms=1e6,
        clock=reranker.clock,
    )
    assert (reading.reranked, reading.stopped) == (6, "complete")


@dataclass
class Loading(Scripted):
    """Takes ten seconds to load, and reads three characters of a query."""

    def readable_query(self, query: str) -> str:
        self.now += 10.0
        return query[:3]


def test_loading_is_not_charged_and_a_cut_query_is_told() -> None:
    reranker = Loading(seconds_per_character=0.0001)
    reading = read_candidates(
        "query", ["1", "2"], [2, 1], reranker, first_stage_weight=0, top_k=5, budget_ms=100, clock=reranker.clock
    )
    assert reading.stopped == "complete"
    assert reading.warning == "the cross-encoder read the first 3 of the 5 characters of the query"


@dataclass
class Broken(Scripted):
    """Fails, or gives something useless, from the second batch on."""

    answer: object = None

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        good = super().score(query, texts)
        if len(self.batches) == 1:
            return good
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (RuntimeError("out of memory"), "scripted failed with RuntimeError: out of memory"),
        (np.array([1.0, 2.0]), "1 texts got scores of shape (2,)"),
        (np.array([[1.0]]), "1 texts got scores of shape (1, 1)"),
        (np.array([math.nan]), "a score is not finite"),
    ],
    ids=["raises", "too many", "wrong shape", "nan"],
)
def test_a_failing_reranker_leaves_the_first_stage(answer: object, told: str) -> None:
    reading = read_candidates(
        "q", ["1", "2", "3"], [0.9, 0.8, 0.1], Broken(answer=answer), first_stage_weight=0, top_k=5, batch_size=1
    )
    assert (reading.logits, reading.scores) == ((None,) * 3, (0.9, 0.8, 0.1))
    assert (reading.reranked, reading.stopped) == (0, "off")
    assert reading.warning is not None
    assert told in reading.warning


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"texts": list("123")}, "3 texts to read, but only 2"),
        ({"groups": ["a"]}, "1 groups for 2 candidates"),
        ({"first_stage": [1.0, 2.0]}, "do not fall"),
        ({"first_stage": [math.nan, 2.0]}, "not finite"),
        ({"first_stage_weight": 1.5}, "from 0 to 1, not 1.5"),
        ({"first_stage_weight": math.nan}, "from 0 to 1, not nan"),
        ({"top_k": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"budget_ms": 0.0}, "above 0"),
        ({"budget_ms": math.nan}, "above 0"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, object], told: str) -> None:
    arguments: dict[str, object] = {"texts": ["1"], "first_stage": [2.0, 1.0], "first_stage_weight": 0.5, "top_k": 5}
    with pytest.raises(ValueError, match=told):
        read_candidates("q", reranker=Scripted(), **arguments | changes)  # type: ignore[arg-type]


candidates = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.52, 0.9, 1.0]), st.floats(-8, 8), st.sampled_from("abcdefgh")),
    min_size=1,
    max_size=24,
)


@settings(deadline=None)
@given(candidates, st.sampled_from([0.0, 0.3, 0.7, 0.9, 1.0]), st.integers(0, 24), st.booleans(), st.integers(1, 5))
def test_the_top_five_are_the_beginning_of_the_top_twenty(
    rows: list[tuple[float, float, str]], weight: float, depth: int, grouped: bool, batch_size: int
) -> None:
    rows = sorted(rows, reverse=True, key=lambda row: row[0])
    first = [row[0] for row in rows]
    texts = [repr(row[1]) for row in rows[:depth]]
    groups = [row[2] for row in rows] if grouped else None

    def read(top_k: int) -> Reading:
        return read_candidates(
            "q",
            texts,
            first,
            Scripted(),
            first_stage_weight=weight,
            top_k=top_k,
            groups=groups,
            batch_size=batch_size,
        )

    # A top that cannot be filled is never settled: everything is read.
    everything = read(len(rows) + 1)
    assert everything.reranked == len(texts)
    five, twenty = read(5), read(20)
    assert five.reranked <= twenty.reranked
    assert top(five, groups, 5) == top(twenty, groups, 20)[:5] == top(everything, groups, 5)


@settings(deadline=None)
@given(candidates, st.floats(1, 2000), st.sampled_from([0.0, 0.5, 1.0]))
def test_unread_candidates_keep_their_order_behind_read_ones(
    rows: list[tuple[float, float, str]], budget_ms: float, weight: float
) -> None:
    rows = sorted(rows, reverse=True, key=lambda row: row[0])
    reranker = Scripted(seconds_per_character=0.001)
    reading = read_candidates(
        "q",
        [repr(row[1]) for row in rows],
        [row[0] for row in rows],
        reranker,
        first_stage_weight=weight,
        top_k=3,
        budget_ms=budget_ms,
        clock=reranker.clock,
    )
    read = reading.reranked
    assert all(logit is not None for logit in reading.logits[:read])
    assert set(reading.logits[read:]) <= {None}
    tail = reading.scores[read:]
    assert list(tail) == sorted(tail, reverse=True)
    assert not tail or min(reading.scores[:read]) >= max(tail)
    if read > 1:
        assert reranker.now * 1000 <= budget_ms + 1e-6


def test_a_twin_is_read_whatever_depth_and_budget() -> None:
    texts = texts_of(1, 0, -1)
    reranker = Scripted(seconds_per_character=1.0)
    reading = read_candidates(
        "q",
        texts,
        [5, 4, 3, 2, 1],
        reranker,
        first_stage_weight=0.5,
        top_k=2,
        budget_ms=1,
        twins=[(0, 2, 4), (1, 3)],
        beyond={4: "00003.000", 3: "00009.000"},
        clock=reranker.clock,
    )
    # The budget allows the first one only; its twins are read, and no others.
    assert reading.logits == (1, None, -1, None, 3)
    assert (reading.reranked, reading.stopped) == (3, "budget")
    assert reading.scores[4] == pytest.approx(0.5 * sigmoid(3))
    assert reading.scores[1] == pytest.approx(0.5 * 0.75)


def test_the_twins_of_the_best_are_read_first_and_not_too_many() -> None:
    beyond = {at: f"{at:08.3f}" for at in range(2, 20)}
    reading = read_candidates(
        "q",
        texts_of(1, 2),
        list(range(20, 0, -1)),
        Scripted(),
        first_stage_weight=0.0,
        top_k=2,
        twins=[(0, *range(2, 11)), (1, *range(11, 17))],
        beyond=beyond,
    )
    # Six twins of the second, which scores higher, then two of the nine of the first.
    assert [at for at, logit in enumerate(reading.logits) if logit is not None] == [0, 1, 2, 3, *range(11, 17)]
    assert reading.reranked == 2 + MOST_TWINS


def test_what_does_not_count_does_not_settle() -> None:
    # Without a bar the first two are settled: 1 + sigmoid against 0 + 1 at most. Behind a bar of 3 only one of them is.
    arguments = {"first_stage_weight": 0.5, "top_k": 2, "batch_size": 1}
    texts, first = texts_of(2, 2, 4, 4), [10.0, 9.9, 0.1, 0.0]
    free = read_candidates("q", texts, first, Scripted(), **arguments)  # type: ignore[arg-type]
    barred = read_candidates("q", texts, first, Scripted(), counts=lambda logit: logit > 3, **arguments)  # type: ignore[arg-type]
    assert (free.reranked, free.stopped) == (2, "settled")
    assert (barred.reranked, barred.stopped) == (4, "complete")


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=12),
    st.integers(0, 11),
    st.integers(1, 5),
    st.sets(st.integers(0, 11), max_size=6),
)
def test_twins_change_nothing_for_the_others(logits: list[int], depth: int, top_k: int, group: set[int]) -> None:
    texts, first = texts_of(*logits), [float(-at) for at in range(len(logits))]
    depth = min(depth, len(texts) - 1) + 1
    members = tuple(sorted(at for at in group if at < len(texts)))
    beyond = {at: texts[at] for at in members if at >= depth}
    arguments = {"first_stage_weight": 0.4, "top_k": top_k, "batch_size": 2}
    alone = read_candidates("q", texts[:depth], first, Scripted(), **arguments)  # type: ignore[arg-type]
    reading = read_candidates("q", texts[:depth], first, Scripted(), twins=[members], beyond=beyond, **arguments)  # type: ignore[arg-type]
    extra = {at for at, logit in enumerate(reading.logits) if logit is not None and alone.logits[at] is None}
    assert extra <= set(members)
    assert len(extra) <= MOST_TWINS
    assert reading.stopped == alone.stopped
    for at in set(range(len(texts))) - extra:
        assert (reading.logits[at], reading.scores[at]) == (alone.logits[at], alone.scores[at])
    if any(alone.logits[at] is not None for at in members):
        assert extra == {at for at in members if alone.logits[at] is None}
