from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrieval.errors import ModelError
from retrieval.models import find_model
from retrieval.rerankers import (
    IsotonicCalibration,
    PlattCalibration,
    RerankerCalibration,
    Threshold,
    fit_isotonic,
    fit_platt,
    model_digest,
    read_calibration,
    threshold_for_precision,
    write_calibration,
)

labelled = st.lists(st.tuples(st.integers(-30, 30), st.booleans()), min_size=4, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def test_platt_by_hand() -> None:
    # Four labels of each kind count as 5/6 and 1/6. Where three of four are true that makes 2/3, where one is, 1/3:
    # two points that a logistic function with slope ln 2 goes through.
    fitted = fit_platt([1, 1, 1, 1, -1, -1, -1, -1], [1, 1, 1, 0, 1, 0, 0, 0])
    assert fitted.slope == pytest.approx(math.log(2), abs=1e-9)
    assert fitted.intercept == pytest.approx(0, abs=1e-9)
    assert fitted.probability([1.0, -1.0, 0.0]) == pytest.approx([2 / 3, 1 / 3, 1 / 2])


def test_a_weight_of_two_is_two_labels() -> None:
    heavy = fit_platt([0, 1, 2, 3], [0, 1, 0, 1], [1, 2, 1, 1])
    twice = fit_platt([0, 1, 1, 2, 3], [0, 1, 1, 0, 1])
    assert (heavy.slope, heavy.intercept) == pytest.approx((twice.slope, twice.intercept), rel=1e-6)
    stepped = fit_isotonic([0, 1, 2, 3], [0, 1, 0, 1], [1, 2, 1, 1])
    assert stepped == fit_isotonic([0, 1, 1, 2, 3], [0, 1, 1, 0, 1])


def test_separated_labels_have_a_finite_slope() -> None:
    fitted = fit_platt([-5, -4, 4, 5], [0, 0, 1, 1])
    assert fitted.probability([-4.5, 4.5]) == pytest.approx([0.25, 0.75], abs=0.01)


def test_isotonic_by_hand() -> None:
    fitted = fit_isotonic([4, 1, 3, 2], [1, 0, 0, 1])  # 2 and 3 are the wrong way round: together one half
    assert fitted == IsotonicCalibration((1, 2, 3, 4), (0, 0.5, 0.5, 1))
    assert fitted.probability([-9, 1.5, 2.5, 3.5, 9]).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_equal_logits_share_a_knot() -> None:
    assert fit_isotonic([0, 0, 1, 1, 1], [0, 1, 1, 1, 0]) == IsotonicCalibration((0, 1), (0.5, 2 / 3))


def test_rows_without_weight_leave_no_trace() -> None:
    assert fit_isotonic([-7, 0, 1], [1, 0, 1], [0, 1, 1]) == IsotonicCalibration((0, 1), (0, 1))


@given(labelled)
def test_calibrations_rise_within_zero_and_one_and_keep_the_mean(rows: list[tuple[int, bool]]) -> None:
    logits, labels = [row[0] for row in rows], [row[1] for row in rows]
    isotonic = fit_isotonic(logits, labels)
    heights = isotonic.probability(np.linspace(-40, 40, 321))
    assert (np.diff(heights) >= 0).all()
    assert heights[0] >= 0
    assert heights[-1] <= 1
    assert isotonic.probability(logits).mean() == pytest.approx(np.mean(labels))
    # The likelihood is concave, so the slope has the sign of the difference of the means.
    gap = np.mean([logit for logit, label in rows if label]) - np.mean([logit for logit, label in rows if not label])
    assume(abs(gap) > 1e-6)
    if gap < 0:
        with pytest.raises(ValueError, match="not better"):
            fit_platt(logits, labels)
        return
    platt = fit_platt(logits, labels)
    # The mean of the probabilities is that of the labels as they count: what the best intercept does.
    true = sum(labels)
    counts = np.where(labels, (true + 1) / (true + 2), 1 / (len(labels) - true + 2))
    assert platt.probability(logits).mean() == pytest.approx(counts.mean(), abs=1e-6)
    assert (np.diff(platt.probability(np.linspace(-40, 40, 321))) >= 0).all()


def test_huge_logits_neither_overflow_nor_stop_the_fit() -> None:
    fitted = fit_platt([-1e8, -2e8, 1e8, 2e8, -1.5e8, 0.5e8], [0, 0, 1, 1, 1, 0])
    assert fitted.probability([-1e300, 1e300]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@pytest.mark.parametrize(
    ("logits", "labels", "weights", "words"),
    [
        ([], [], None, "labels of both kinds"),
        ([1, 2], [1, 1], None, "labels of both kinds"),
        ([1, 2], [0, 1], [0, 1], "labels of both kinds"),
        ([1, 2, 3], [0, 1], None, "rows of one length"),
        ([[1, 2]], [[0, 1]], None, "rows of one length"),
        ([1, float("nan")], [0, 1], None, "scores are finite"),
        ([1, 2], [0, 1], [1, -1], "not below 0"),
        ([1, 2], [0, 0.5], None, "true or false"),
    ],
)
def test_what_cannot_be_fitted(fit: Callable[..., Any], logits: Any, labels: Any, weights: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(logits, labels, weights)


def test_labels_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="higher logits are not better here"):
        fit_platt([1, 2, 3, 4], [1, 1, 0, 0])


FALLING = [0.9, 0.8, 0.7, 0.6, 0.5]
RIGHT = [True, True, False, True, False]


@pytest.mark.parametrize(
    ("target", "threshold"),
    [
        (0.75, Threshold(0.75, 0.6, 0.75, 1.0)),
        (0.7, Threshold(0.7, 0.6, 0.75, 1.0)),
        (0.9, Threshold(0.9, 0.8, 1.0, 2 / 3)),
        (0.6, Threshold(0.6, 0.5, 0.6, 1.0)),
    ],
)
def test_the_smallest_threshold_that_is_precise_enough(target: float, threshold: Threshold) -> None:
    assert threshold_for_precision(FALLING, RIGHT, target) == threshold


def test_equal_probabilities_are_trusted_together_or_not_at_all() -> None:
    # Taking only the right one of the two at 0.8 would be precise.
    assert threshold_for_precision([0.9, 0.8, 0.8], [True, True, False], 0.9).probability == 0.9


def test_a_precision_that_nothing_reaches() -> None:
    with pytest.raises(ValueError, match=r"no threshold has a precision of 0\.9; the best has 0\.500"):
        threshold_for_precision([0.9, 0.8], [False, True], 0.9)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        threshold_for_precision(FALLING, RIGHT, 0.0)


def test_weights_move_a_threshold() -> None:
    assert threshold_for_precision(FALLING, RIGHT, 0.75, [1, 1, 3, 1, 1]).probability == 0.8


CALIBRATION = RerankerCalibration(
    passages=IsotonicCalibration((-1.0, 2.0), (0.1, 0.7)),
    results=PlattCalibration(1.0, 0.0),
    thresholds=(Threshold(0.8, 0.4, 0.81, 0.9), Threshold(0.9, 0.7, 0.9, 0.5)),
    fitted_on="two sets",
    model_digest="0" * 12,
)


def test_the_best_logit_of_a_result_decides() -> None:
    assert CALIBRATION.answer_probability([0.0, None, math.log(3), -2.0]) == pytest.approx(0.75)
    assert CALIBRATION.answer_probability([None, None]) == 0.0
    assert CALIBRATION.answer_probability([]) == 0.0


def test_a_threshold_by_its_target() -> None:
    assert CALIBRATION.threshold(0.9).probability == 0.7
    with pytest.raises(ValueError, match=r"no threshold for a precision of 0\.85; there are some for 0\.8, 0\.9"):
        CALIBRATION.threshold(0.85)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    return tmp_path


def digested(folder: Path) -> RerankerCalibration:
    return RerankerCalibration.from_json({**CALIBRATION.to_json(), "model_digest": model_digest(folder)})


def test_it_comes_back_from_its_file(folder: Path) -> None:
    assert read_calibration(folder) is None
    write_calibration(folder, digested(folder))
    assert read_calibration(folder) == digested(folder)


def test_other_weights_have_another_calibration(folder: Path) -> None:
    write_calibration(folder, digested(folder))
    (folder / "model.onnx").write_bytes(b"another graph")
    with pytest.raises(ModelError, match=r"was fitted on the graph [0-9a-f]{12}, but .* fit it anew or remove it"):
        read_calibration(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"passages": None}, "not subscriptable"),
        ({"results": {"kind": "spline"}}, "platt or isotonic, not 'spline'"),
        ({"results": {"kind": "platt", "slope": -1, "intercept": 0}}, "slope is above 0"),
        ({"results": {"kind": "platt", "slope": math.nan, "intercept": 0}}, "slope is above 0"),
        ({"passages": {"kind": "isotonic", "logits": [1, 0], "probabilities": [0, 1]}}, "logits of a calibration rise"),
        ({"passages": {"kind": "isotonic", "logits": [0, 1], "probabilities": [0, 2]}}, "from 0 to 1"),
        ({"passages": {"kind": "isotonic", "logits": [], "probabilities": []}}, "not the knots"),
        ({"thresholds": [{"target": 0.9}]}, "'probability' is missing"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(folder: Path, change: dict[str, Any], words: str) -> None:
    content = {**digested(folder).to_json(), **change}
    (folder / "calibration.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=words):
        read_calibration(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{", b"[" * 100_000])
def test_what_is_not_a_calibration(folder: Path, content: bytes) -> None:
    (folder / "calibration.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"calibration\.json (is not readable JSON|holds a list)"):
        read_calibration(folder)


def test_a_folder_without_a_graph_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no graph of a cross-encoder"):
        model_digest(tmp_path)


def test_the_bundled_cross_encoder_is_calibrated(tmp_path: Path) -> None:
    bundled = find_model("starter-reranker")
    calibration = read_calibration(bundled)
    assert calibration is not None
    assert [threshold.target for threshold in calibration.thresholds] == sorted(
        threshold.target for threshold in calibration.thresholds
    )
    assert calibration.answer_probability([8.0]) > calibration.threshold(0.8).probability
    assert calibration.answer_probability([-8.0]) < calibration.threshold(0.7).probability
    # The copy that a user trains on gets other weights and must not inherit it.
    shutil.copytree(bundled, tmp_path / "copy")
    with (tmp_path / "copy" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="fit it anew"):
        read_calibration(tmp_path / "copy")
