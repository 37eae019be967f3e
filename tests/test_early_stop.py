"""Stopping when reading on will probably not change the first hits: what is forecast, and what stays promised."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines import TwoStagePipeline
from retrieval.config import Config, MemoryStoreConfig, RerankConfig
from retrieval.models import find_model
from retrieval.rerankers import (
    EarlyStop,
    Forecast,
    LikelySettled,
    Reading,
    RerankerCalibration,
    read_calibration,
    read_candidates,
)
from tests.test_budget import Scripted, sigmoid, texts_of, top

STEEP = Forecast(0.0, -50.0, 0.0, 0.0, "by hand")
"""Certain of what needs a logit below 0, and certain of nothing else."""


def read(logits: list[float], first: list[float], stop: EarlyStop, **changes: Any) -> Reading:
    given = {"first_stage_weight": 0.5, "top_k": 1, "batch_size": 1, "early_stop": stop, **changes}
    return read_candidates("q", texts_of(*logits), first, Scripted(), **given)


def test_the_chance_by_hand() -> None:
    forecast = Forecast(-1.0, -2.0, 4.0, 0.5, "by hand")
    # Of the last four logits (1, 2, 3, 4) the mean is 2.5; a sigmoid of .5 is a logit of 0.
    one = sigmoid(-1 + 4 * 0.25 + 0.5 * 2.5)
    assert forecast.chance([0.5], [0.25], [-9, 1, 2, 3, 4]) == pytest.approx(one)
    other = sigmoid(-1 - 2 * 1.5 + 0.5 * 2.5)
    both = 1 - (1 - one) * (1 - other)
    assert forecast.chance([0.5, sigmoid(1.5)], [0.25, 0.0], [1, 2, 3, 4]) == pytest.approx(both)


def test_what_is_certain_is_not_forecast() -> None:
    forecast = Forecast(500.0, -1.0, 0.0, 0.0, "by hand")
    assert forecast.chance([1.0, 1.2], [1.0, 1.0], [0.0]) == 0
    assert Forecast(-500.0, -1.0, 0.0, 0.0, "by hand").chance([0.0], [0.0], [0.0]) == 1
    assert forecast.chance([], [], [0.0]) == 0


@pytest.mark.parametrize("numbers", [(math.nan, -1, 0, 0), (0, 0, 0, 0), (0, 1, 0, 0), (0, -1, math.inf, 0)])
def test_what_is_no_forecast(numbers: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="'needed' is below 0"):
        Forecast(*numbers, fitted_on="nothing")


def test_what_is_no_rule() -> None:
    for error in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            LikelySettled(STEEP, error)
    with pytest.raises(ValueError, match="at least 1 group"):
        LikelySettled(STEEP, 0.1, top=0)


def test_it_stops_where_the_exact_rule_reads_on() -> None:
    # The first has .5 + .5 * sigmoid(2) = .94. The second has .45 and would need a sigmoid of .98: possible, unlikely.
    logits, first = [2.0, 1.0, 1.0], [1.0, 0.9, 0.0]
    assert read(logits, first, "exact").stopped == "settled"
    assert read(logits, first, "exact").reranked == 2
    likely = read(logits, first, LikelySettled(STEEP, 0.01, top=1))
    assert (likely.reranked, likely.stopped) == (1, "likely")
    never = read(logits, first, None)
    assert (never.reranked, never.stopped) == (3, "complete")


def test_it_reads_on_where_a_change_is_likely() -> None:
    # The first has .5 + .5 * sigmoid(-3) = .52; the second needs a sigmoid of .15 only.
    reading = read([-3.0, 1.0, -9.0], [1.0, 0.9, 0.0], LikelySettled(STEEP, 0.01, top=1))
    assert reading.reranked == 2


def test_a_better_passage_of_a_document_that_is_shown_counts_as_a_change() -> None:
    # Both are of one document and nothing else is shown: the second needs .02 more than the first has.
    logits, first = [-3.0, 4.0, -9.0, -9.0], [1.0, 0.9, 0.1, 0.0]
    rule = LikelySettled(STEEP, 0.01, top=2)
    assert read(logits, first, rule, groups=["a", "a", "b", "b"], top_k=2).reranked >= 2


def test_too_few_documents_are_never_likely_settled() -> None:
    rule = LikelySettled(STEEP, 0.9, top=3)
    assert read([9.0, 9.0, 9.0], [1.0, 0.9, 0.8], rule, groups=["a", "b", "b"], top_k=3).stopped == "complete"


logits = st.lists(st.floats(-6, 6).map(lambda value: round(value, 2)), min_size=1, max_size=24)


@settings(max_examples=150, deadline=None)
@given(
    logits=logits,
    spread=st.floats(0.1, 3),
    groups=st.integers(1, 12),
    error=st.floats(0.01, 0.9),
    numbers=st.tuples(st.floats(-3, 3), st.floats(-2, -0.1), st.floats(0, 4), st.floats(-1, 1)),
    top_k=st.integers(1, 12),
    longer=st.integers(0, 12),
)
def test_a_longer_result_begins_with_the_shorter(
    logits: list[float],
    spread: float,
    groups: int,
    error: float,
    numbers: tuple[float, float, float, float],
    top_k: int,
    longer: int,
) -> None:
    first = [math.exp(-spread * at / len(logits)) for at in range(len(logits))]
    owners = [at * 7 % groups for at in range(len(logits))]
    rule = LikelySettled(Forecast(*numbers, fitted_on="drawn"), error)
    few, many = (
        read(logits, first, rule, groups=owners, top_k=count, batch_size=4) for count in (top_k, top_k + longer)
    )
    assert top(few, owners, top_k) == top(many, owners, top_k + longer)[: len(top(few, owners, top_k))]
    assert few.reranked <= many.reranked <= len(logits)


@settings(max_examples=100, deadline=None)
@given(logits=logits, spread=st.floats(0.1, 3))
def test_who_accepts_hardly_any_chance_gets_what_reading_all_gives(logits: list[float], spread: float) -> None:
    first = [math.exp(-spread * at / len(logits)) for at in range(len(logits))]
    # Sure of a change wherever one is possible.
    rule = LikelySettled(Forecast(400.0, -1.0, 0.0, 0.0, "by hand"), 1e-6)
    careful, everything = (read(logits, first, stop, top_k=5, batch_size=4) for stop in (rule, None))
    assert [at for at, *_ in top(careful, None, 5)] == [at for at, *_ in top(everything, None, 5)]


def test_a_forecast_is_kept_in_the_calibration() -> None:
    calibration = read_calibration(find_model("starter-reranker"))
    assert calibration is not None
    assert calibration.forecast is not None
    assert RerankerCalibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    without = {name: value for name, value in calibration.to_json().items() if name != "forecast"}
    assert RerankerCalibration.from_json(without).forecast is None
    damaged = calibration.to_json()
    del damaged["forecast"]["needed"]
    with pytest.raises(ValueError, match="'needed' is missing"):
        RerankerCalibration.from_json(damaged)


@pytest.mark.parametrize("value", ["off", "always", 0, 1, -0.1, True, None])
def test_what_is_no_setting(value: Any) -> None:
    with pytest.raises(ValidationError, match="early_stop"):
        RerankConfig(early_stop=value)


def test_the_setting_reaches_the_search(tmp_path: Path) -> None:
    documents = [(f"d{number}", f"note {number} on copper pipes, joints and leaks") for number in range(30)]
    documents[0] = ("d0", "A leaking copper pipe is repaired with a clamp over the leak.")
    read: dict[object, int] = {}
    for stop in ("never", "exact", 0.9):
        config = Config(store=MemoryStoreConfig(), rerank=RerankConfig(early_stop=stop, batch_size=4))
        with TwoStagePipeline.open(config=config) as pipeline:
            pipeline.ingest(documents)
            results = pipeline.search("how to repair a leaking copper pipe")
            assert results.hits[0].document_id == "d0"
            read[stop] = results.reranked
    assert read["never"] == 20
    assert read[0.9] < read["exact"] <= read["never"]
