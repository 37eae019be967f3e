from __future__ import annotations

import math

import pytest

from retrieval.evaluation import bootstrap_interval, compare
from retrieval.evaluation.comparison import holm, randomization_p


def test_the_bootstrap_of_a_case_on_paper() -> None:
    """One query of eight gained 1: a resample holds it X times, X binomial with n = 8 and p = 1/8.

    P(X = 0) = .344, so the lower end is 0. P(X <= 2) = .933 and P(X <= 3) = .989, so the upper end is 3/8.
    """
    assert [round(sum(math.comb(8, k) * 7 ** (8 - k) for k in range(top + 1)) / 8**8, 3) for top in (0, 2, 3)] == [
        *(0.344, 0.933, 0.989),
    ]
    assert bootstrap_interval([1.0] + [0.0] * 7) == (0.0, 3 / 8)


def test_the_comparison_has_the_interval_of_the_differences() -> None:
    base = {"m": {f"q{number}": 0.5 for number in range(8)}}
    other = {"m": {**base["m"], "q3": 1.5}}
    (one,) = compare({"base": base, "other": other}, "base")
    assert (one.difference, one.interval) == (1 / 8, (0.0, 3 / 8))
    assert (one.queries, one.gained, one.lost) == (8, 1, 0)
    # Of the two signs that the one difference can have, both give a mean as far from 0.
    assert (one.p, one.p_corrected, one.outcome) == (1.0, 1.0, "open")
    assert one.verdict == "not distinguishable with 8 queries"


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 1.0, 1.0], 2 / 8),  # all signs the same: two of eight
        ([1.0, 1.0, 1.0, 0.0, 0.0], 2 / 8),  # those without a difference decide nothing
        ([3.0, 1.0], 2 / 4),  # sums 4, 2, -2, -4
        ([2.0, 1.0, -1.0], 6 / 8),  # observed 2; of the sums 4, 2, 2, 0 and their negatives two are smaller
        ([0.0, 0.0], 1.0),
        ([-0.1] * 10, 2 / 1024),
    ],
)
def test_the_randomization_test_by_hand(differences: list[float], p: float) -> None:
    assert randomization_p(differences) == p
    assert randomization_p([-difference for difference in differences]) == p


def test_the_drawn_signs_agree_with_the_counted_ones() -> None:
    # 100 differences of one size: with S of them positive, p is that of a binomial sign test.
    positive = 60
    exact = 2 * sum(math.comb(100, k) for k in range(positive, 101)) / 2**100
    drawn = randomization_p([1.0] * positive + [-1.0] * (100 - positive))
    assert exact == pytest.approx(0.0569, abs=1e-4)
    assert drawn == pytest.approx(exact, abs=0.008)
    assert drawn == randomization_p([1.0] * positive + [-1.0] * (100 - positive))
    assert randomization_p([1.0] * 100) == 1 / 10_001


@pytest.mark.parametrize("differences", [[], [math.nan], [1.0, math.inf]])
def test_a_test_needs_finite_differences(differences: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one difference"):
        randomization_p(differences)


def test_holm_by_hand() -> None:
    # Sorted: .01 x 4, .02 x 3, .03 x 2, .04 x 1; none below the one before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_better_worse_and_open() -> None:
    queries = [f"q{number}" for number in range(20)]
    base = {"m": dict.fromkeys(queries, 0.5), "n": dict.fromkeys(queries, 0.5)}
    better = {"m": dict.fromkeys(queries, 0.6), "n": dict.fromkeys(queries, 0.4)}
    even = {"m": {query: 0.4 + 0.2 * (number % 2) for number, query in enumerate(queries)}, "n": base["n"]}
    found = compare({"better": better, "base": base, "even": even}, "base")
    assert [(one.measure, one.system, one.outcome) for one in found] == [
        ("m", "better", "better"),
        ("m", "even", "open"),
        ("n", "better", "worse"),
        ("n", "even", "open"),
    ]
    assert found[1].verdict == "not distinguishable with 20 queries"
    # The smallest of four p-values counts four times.
    assert found[0].p_corrected == pytest.approx(4 * found[0].p)
    assert found[0].interval == pytest.approx((0.1, 0.1))


def test_a_correction_can_take_a_difference_back() -> None:
    # Six gains and no loss: p = 2/64 = .031, enough alone, not as one of two.
    queries = [f"q{number}" for number in range(6)]
    base, gain = {"m": dict.fromkeys(queries, 0.0)}, {"m": dict.fromkeys(queries, 0.1)}
    (alone,) = compare({"base": base, "gain": gain}, "base")
    assert (alone.p_corrected, alone.outcome) == (2 / 64, "better")
    first, second = compare({"base": base, "gain": gain, "gain again": gain}, "base")
    assert first.p == second.p == 2 / 64
    assert (first.p_corrected, first.outcome, second.outcome) == (4 / 64, "open", "open")


def test_what_cannot_be_compared_is_refused() -> None:
    one, other = {"m": {"q1": 0.0}}, {"m": {"q2": 0.0}}
    with pytest.raises(ValueError, match="baseline 'best' is not among the systems: one, other"):
        compare({"one": one, "other": other}, "best")
    with pytest.raises(ValueError, match="different queries"):
        compare({"one": one, "other": other}, "one")
    assert compare({"one": one}, "one") == ()
