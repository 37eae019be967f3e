"""The forecast that the recipe fits keeps its promise on queries that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rerank_reading import TOP_K, Asked, documents, fit_forecast, replay, tokens
from retrieval.rerankers import LikelySettled

CANDIDATES = 20


def drawn(seed: int, queries: int = 150) -> list[Asked]:
    """Candidates whose logits fall with their first-stage score, with noise, and are better or worse by query."""
    generator = np.random.default_rng(seed)
    asked = []
    for number in range(queries):
        first = np.sort(generator.random(CANDIDATES + 10))[::-1]
        logits = 3 * first[:CANDIDATES] - 3 + generator.normal(0, 1.5) + generator.normal(0, 1.2, CANDIDATES)
        names = [f"d{place}" for place in range(len(first))]
        read = [(float(logit), 100) for logit in logits]
        asked.append(Asked(str(number), first.tolist(), names, {"d0": 1}, {"90": read}))
    return asked


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_the_first_hits_change_no_more_often_than_was_accepted(error: float) -> None:
    forecast = fit_forecast({"one": drawn(1), "two": drawn(2, 60)}, "drawn")
    assert forecast.needed < 0
    asked = drawn(3)
    changed, read = [], []
    for one in asked:
        full, early = (replay(one, "90", CANDIDATES, stop) for stop in (None, LikelySettled(forecast, error)))
        changed.append(documents(one, full)[:TOP_K] != documents(one, early)[:TOP_K])
        read.append(early.reranked)
        assert tokens(one, "90", early) == 100 * early.reranked
    assert np.mean(changed) <= error
    # Something is gained, for some more than for others.
    assert 8 <= min(read) < np.mean(read) < CANDIDATES


def test_who_accepts_more_reads_less() -> None:
    forecast = fit_forecast({"one": drawn(1)}, "drawn")
    few, many = (
        np.mean([replay(one, "90", CANDIDATES, LikelySettled(forecast, error)).reranked for one in drawn(4)])
        for error in (0.4, 0.05)
    )
    assert few < many
