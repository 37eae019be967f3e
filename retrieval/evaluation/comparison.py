"""Is one system better than another? Differences on the same queries, with intervals and corrected p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retrieval.evaluation.measures import bootstrap_interval

LEVEL = 0.05
"""Corrected p-values below this count as a difference."""

_EXACT = 12
_RESAMPLES = 10_000
_BATCH = 200
# Two sums of the same numbers in another order may differ in their last digits.
_ROUNDING = 1e-9

Values = Mapping[str, Mapping[str, float]]
"""Measure to query id to value: what `Measured.per_query` holds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against the baseline in one measure.

    Args:
        measure: Name of the measure.
        system: Name of the system.
        baseline: Name of what it is compared with.
        queries: How many queries both were measured on.
        difference: Mean of the differences per query; above 0 where the system is better.
        interval: 95 % bootstrap interval of that mean; of this comparison alone, not corrected for the others.
        p: How often chance alone gives a mean at least this far from 0: a paired randomization test.
        p_corrected: The same after Holm's correction for all comparisons that were made together.
        gained: Queries on which the system is better.
        lost: Queries on which it is worse.
        outcome: ``better`` or ``worse`` where ``p_corrected`` is below 0.05, else ``open``.
        verdict: The outcome in words: ``better``, ``worse`` or ``not distinguishable with N queries``.
    """

    measure: str
    system: str
    baseline: str
    queries: int
    difference: float
    interval: tuple[float, float]
    p: float
    p_corrected: float
    gained: int
    lost: int
    outcome: Literal["better", "worse", "open"]
    verdict: str


def compare(systems: Mapping[str, Values], baseline: str) -> tuple[Comparison, ...]:
    """Compare every other system with the baseline in every measure; one family for Holm's correction.

    Args:
        systems: Values of each system by its name, over the same measures and queries.
        baseline: Name of one of them.

    Returns:
        One comparison for each measure and system, measure by measure.

    Raises:
        ValueError: The baseline is none of the systems, or a system lacks a measure or a query.
    """
    if baseline not in systems:
        raise ValueError(f"baseline {baseline!r} is not among the systems: {', '.join(systems)}")
    pairs = [(measure, name) for measure in systems[baseline] for name in systems if name != baseline]
    differences = {(measure, name): _differences(systems, baseline, measure, name) for measure, name in pairs}
    ps = {pair: randomization_p(values) for pair, values in differences.items()}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    return tuple(
        _comparison(measure, name, baseline, differences[measure, name], ps[measure, name], corrected[measure, name])
        for measure, name in pairs
    )


def randomization_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided paired randomization test of a mean difference.

    Were both systems the same, every difference could as well have the other sign. The p-value is the share of signs
    that give a mean at least as far from 0 as the one observed: all of them with up to 12 differences that are not 0,
    else 10,000 drawn ones, of which the observed one counts as another.

    Source: Smucker, Allan and Carterette, A comparison of statistical significance tests for information retrieval
    evaluation, 2007.

    Args:
        differences: One for each query.
        seed: Seed of the drawing.

    Raises:
        ValueError: There are none, or one is not finite.
    """
    data = np.asarray(differences, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"a test needs at least one difference, all of them finite, not {data.size}")
    data = data[data != 0]
    observed = abs(data.sum()) - _ROUNDING
    if data.size <= _EXACT:
        signs = 1 - 2 * (np.arange(2**data.size)[:, None] >> np.arange(data.size) & 1)
        return float((np.abs(signs @ data) >= observed).mean())
    random = np.random.default_rng(seed)
    as_far = 1
    for _ in range(_RESAMPLES // _BATCH):
        signs = 1 - 2 * random.integers(0, 2, (_BATCH, data.size), dtype=np.int8)
        as_far += int((np.abs(signs @ data) >= observed).sum())
    return as_far / (_RESAMPLES + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for being several, in the order given.

    The smallest of n is multiplied by n, the next by n - 1, and so on; none becomes smaller than the one before it or
    larger than 1.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected = [0.0] * len(ps)
    largest = 0.0
    for place, position in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, ps[position] * (len(ps) - place)))
        corrected[position] = largest
    return corrected


def _differences(systems: Mapping[str, Values], baseline: str, measure: str, name: str) -> list[float]:
    own, other = systems[name].get(measure, {}), systems[baseline][measure]
    if own.keys() != other.keys():
        raise ValueError(f"{name!r} and the baseline {baseline!r} have values of {measure} for different queries")
    return [own[query] - other[query] for query in other]


def _comparison(
    measure: str, name: str, baseline: str, differences: Sequence[float], p: float, corrected: float
) -> Comparison:
    mean = float(np.mean(differences))
    outcome: Literal["better", "worse", "open"] = "open"
    if corrected < LEVEL:
        outcome = "better" if mean > 0 else "worse"
    count = len(differences)
    queries = f"{count:,} {'query' if count == 1 else 'queries'}"
    return Comparison(
        measure=measure,
        system=name,
        baseline=baseline,
        queries=count,
        difference=mean,
        interval=bootstrap_interval(differences),
        p=p,
        p_corrected=corrected,
        gained=sum(difference > 0 for difference in differences),
        lost=sum(difference < 0 for difference in differences),
        outcome=outcome,
        verdict=f"not distinguishable with {queries}" if outcome == "open" else outcome,
    )
