from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import FirstStageConfig
from retrieval.datatypes import Arm, ArmScore, Candidate, ScoredPoint
from retrieval.ordering import fuse, order, scale_to_unit

scores_of_a_list = st.lists(st.floats(-1e6, 1e6, width=32), max_size=20)
points = st.lists(
    st.builds(ScoredPoint, st.sampled_from("abcdefgh"), st.floats(-100, 100, width=16)),
    max_size=8,
    unique_by=lambda point: point.id,
)


def listed(*pairs: tuple[str, float]) -> list[ScoredPoint]:
    return [ScoredPoint(name, score) for name, score in pairs]


def table(candidates: Sequence[Candidate]) -> list[tuple[str, int, float]]:
    return [(candidate.id, candidate.rank, round(candidate.score, 6)) for candidate in candidates]


def test_score_then_rank_then_id() -> None:
    assert order([0.5, 0.9, 0.5, 0.5], [3, 4, 2, 2], ["d", "c", "b", "a"]) == [1, 3, 2, 0]


def test_nothing_to_order() -> None:
    assert order([], [], []) == []


def test_infinities_are_ordered() -> None:
    assert order([0.0, -math.inf, math.inf], [1, 2, 3], ["a", "b", "c"]) == [2, 0, 1]


def test_a_score_that_is_not_a_number_is_named() -> None:
    with pytest.raises(ValueError, match="score of 'b' at position 1 is not a number"):
        order([1.0, math.nan], [1, 2], ["a", "b"])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        order([1.0], [1, 2], ["a"])


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 3)), max_size=12), st.randoms())
def test_the_order_does_not_depend_on_where_things_stood(rows: list[tuple[float, int]], random: object) -> None:
    named = [(score, rank, f"id-{number}") for number, (score, rank) in enumerate(rows)]
    shuffled = named.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def ordered(things: list[tuple[float, int, str]]) -> list[str]:
        columns = [list(column) for column in zip(*things, strict=True)] or [[], [], []]
        return [things[position][2] for position in order(*columns)]  # type: ignore[arg-type]

    assert ordered(named) == ordered(shuffled)


def test_scaling_by_hand() -> None:
    assert scale_to_unit([2.0, 4.0, 3.0]) == [0.0, 1.0, 0.5]
    assert scale_to_unit([7.0, 7.0]) == [1.0, 1.0]
    assert scale_to_unit([]) == []


def test_scaling_survives_the_largest_numbers() -> None:
    assert scale_to_unit([1.7e308, 0.0, -1.7e308]) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scaling_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="position 1 is not finite"):
        scale_to_unit([1.0, bad])


@given(scores_of_a_list)
def test_scaling_stays_in_range_and_keeps_the_order(scores: list[float]) -> None:
    scaled = scale_to_unit(scores)
    assert all(0 <= share <= 1 for share in scaled)
    assert not scores or max(scaled) == 1
    by_score = sorted(range(len(scores)), key=lambda at: scores[at])
    assert all(scaled[a] <= scaled[b] for a, b in pairwise(by_score))


def test_minmax_by_hand() -> None:
    # dense scaled: a 1, b .5, c 0; bm25 scaled: c 1, d .25, a 0. Weights .4 and .6.
    found = fuse(
        {"dense": listed(("a", 0.9), ("b", 0.7), ("c", 0.5)), "bm25": listed(("c", 12.0), ("d", 6.0), ("a", 4.0))},
        FirstStageConfig(dense_weight=0.4),
    )
    assert table(found) == [("c", 1, 0.6), ("a", 2, 0.4), ("b", 3, 0.2), ("d", 4, 0.15)]
    assert found[0].arms == {"dense": ArmScore(3, 0.5), "bm25": ArmScore(1, 12.0)}
    assert found[3].arms == {"bm25": ArmScore(2, 6.0)}


def test_rrf_by_hand() -> None:
    # a: .4/61 + .6/62, b: .4/62 + .6/61, c: .6/63.
    found = fuse(
        {"dense": listed(("a", 0.9), ("b", 0.7)), "bm25": listed(("b", 12.0), ("a", 6.0), ("c", 4.0))},
        FirstStageConfig(fusion="rrf", dense_weight=0.4, rrf_k=60),
    )
    assert [candidate.id for candidate in found] == ["b", "a", "c"]
    assert found[0].score == pytest.approx(0.4 / 62 + 0.6 / 61)
    assert found[1].score == pytest.approx(0.4 / 61 + 0.6 / 62)
    assert found[2].score == pytest.approx(0.6 / 63)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("arms", [{"dense": True}, {"dense": True, "bm25": False}], ids=["asked one", "one is empty"])
def test_one_arm_has_all_the_weight(arms: dict[Arm, bool], weight: float) -> None:
    given_arms = {arm: listed(("a", 3.0), ("b", 2.0), ("c", 1.0)) if full else [] for arm, full in arms.items()}
    found = fuse(given_arms, FirstStageConfig(dense_weight=weight))
    assert table(found) == [("a", 1, 1.0), ("b", 2, 0.5), ("c", 3, 0.0)]
    rrf = fuse(given_arms, FirstStageConfig(dense_weight=weight, fusion="rrf", rrf_k=1))
    assert [candidate.score for candidate in rrf] == [1 / 2, 1 / 3, 1 / 4]


def test_the_cut_comes_after_the_fusion() -> None:
    # Second in both arms, and best of all: (.5 * .9 + .5 * .9) against .5.
    dense = listed(("a", 10.0), ("both", 9.0), ("z", 0.0))
    bm25 = listed(("b", 10.0), ("both", 9.0), ("y", 0.0))
    found = fuse({"dense": dense, "bm25": bm25}, FirstStageConfig(candidates=1, dense_weight=0.5))
    assert table(found) == [("both", 1, 0.9)]


def test_ties_go_to_the_better_rank_then_to_the_smaller_id() -> None:
    # a is last of three in dense, so 0; x, last of two in bm25, is 0 as well but was second there.
    found = fuse(
        {"dense": listed(("d", 2.0), ("e", 1.0), ("a", 0.0)), "bm25": listed(("d", 5.0), ("x", 1.0))},
        FirstStageConfig(),
    )
    assert [candidate.id for candidate in found] == ["d", "e", "x", "a"]
    same = fuse({"dense": listed(("b", 1.0), ("a", 1.0))}, FirstStageConfig())
    assert table(same) == [("a", 1, 1.0), ("b", 2, 1.0)]


def test_a_repeated_id_counts_once_with_its_best_score() -> None:
    found = fuse({"bm25": listed(("a", 1.0), ("b", 2.0), ("a", 3.0))}, FirstStageConfig())
    assert table(found) == [("a", 1, 1.0), ("b", 2, 0.0)]


def test_no_arm_no_candidates() -> None:
    assert fuse({}, FirstStageConfig()) == []
    assert fuse({"dense": [], "bm25": []}, FirstStageConfig()) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="score of b is"):
        fuse({"dense": listed(("a", 1.0), ("b", bad))}, FirstStageConfig())


@given(points, points, st.sampled_from(["minmax", "rrf"]), st.floats(0, 1), st.randoms())
def test_the_fusion_does_not_depend_on_the_order_of_its_input(
    dense: list[ScoredPoint], bm25: list[ScoredPoint], fusion: str, weight: float, random: object
) -> None:
    config = FirstStageConfig(fusion=fusion, dense_weight=weight, candidates=5)  # type: ignore[arg-type]
    expected = fuse({"dense": dense, "bm25": bm25}, config)
    random.shuffle(dense)  # type: ignore[attr-defined]
    random.shuffle(bm25)  # type: ignore[attr-defined]
    assert fuse({"bm25": bm25, "dense": dense}, config) == expected
    assert [candidate.rank for candidate in expected] == list(range(1, len(expected) + 1))
    assert len({candidate.id for candidate in expected}) == len(expected)
