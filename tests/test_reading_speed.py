"""The speed of the machine: measured once, kept in the user's cache, and what is planned with it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from retrieval.rerankers import OnnxCrossEncoder, ReadingSpeed
from retrieval.rerankers.pace import Pace
from retrieval.rerankers.speed import known_speed, together, user_cache
from tests.pair_graphs import write_shared_words


class Machine:
    """One that takes a millisecond for four tokens, and says how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, tokens: int) -> float:
        self.asked.append(tokens)
        return tokens / 4


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = user_cache()
    assert folder is not None
    assert folder.is_relative_to(tmp_path)
    return folder


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="another folder there")
def test_a_relative_cache_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert user_cache() == tmp_path / ".cache" / "two-stage-retrieval"


def test_lines_between_the_lengths_and_in_proportion_beyond() -> None:
    speed = ReadingSpeed((10, 20), (1.0, 4.0))
    assert [speed.of(tokens) for tokens in (0, 5, 10, 15, 20, 40)] == pytest.approx([0, 0.5, 1.0, 2.5, 4.0, 8.0])


@pytest.mark.parametrize(
    ("tokens", "milliseconds"),
    [((), ()), ((1,), (1.0, 2.0)), ((2, 1), (1.0, 1.0)), ((0, 1), (1.0, 1.0)), ((1,), (0.0,)), ((1,), (math.nan,))],
)
def test_what_is_no_speed(tokens: tuple[int, ...], milliseconds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="no measured speed"):
        ReadingSpeed(tokens, milliseconds)


def test_it_is_measured_once_for_a_model_and_so_many_workers(cache: Path) -> None:
    machine = Machine()
    speed = known_speed("model", 2, 100, machine)
    assert (speed.tokens, speed.milliseconds) == ((16, 64, 100), (4.0, 16.0, 25.0))
    measured = len(machine.asked)
    assert known_speed("model", 2, 100, machine) == speed
    assert len(machine.asked) == measured
    for others, lengths in (
        (("other", 2, 100), {16, 64, 100}),
        (("model", 4, 100), {16, 64, 100}),
        (("model", 2, 50), {16, 50}),
    ):
        machine.asked.clear()
        known_speed(*others, machine)
        assert set(machine.asked) == lengths
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"{",
        b"[]",
        b"{}",
        b'{"tokens": [1], "milliseconds": [-1]}',
        b'{"tokens": "x", "milliseconds": 3}',
        b'{"tokens": [1], "milliseconds": [1e999]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_measured_anew_and_replaced(content: bytes, cache: Path) -> None:
    machine = Machine()
    speed = known_speed("model", 2, 100, machine)
    (file,) = cache.iterdir()
    file.write_bytes(content)
    asked = len(machine.asked)
    assert known_speed("model", 2, 100, machine) == speed
    assert len(machine.asked) == 2 * asked
    assert json.loads(file.read_bytes())["tokens"] == [16, 64, 100]


def test_where_it_cannot_be_written_nothing_is_kept(cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("a file where the folder should be")
    machine = Machine()
    first = known_speed("model", 2, 100, machine)
    asked = len(machine.asked)
    assert known_speed("model", 2, 100, machine) == first
    assert len(machine.asked) == 2 * asked
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_the_cross_encoder_measures_itself(cache: Path, tmp_path: Path) -> None:
    folder = write_shared_words(tmp_path / "model")
    speed = OnnxCrossEncoder(folder).speed()
    assert OnnxCrossEncoder(folder).speed() == speed  # from the file: two measurements are never equal
    prepared = OnnxCrossEncoder(folder).prepare("copper", ["pipe", "pipe " * 300], timed=True)
    assert prepared.milliseconds == tuple(speed.of(len(pair.ids)) for pair in prepared.pairs)


def test_workers_side_by_side() -> None:
    assert together([], 2) == 0
    assert together([5, 3, 2], 1) == 10
    assert together([2, 3, 5], 2) == 5
    assert together([4, 4, 4], 2) == 8


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_with_a_known_speed_the_first_batch_is_planned() -> None:
    # 4 ms each on two workers: 10 ms hold two rounds of two.
    pace = Pace([4.0] * 8, True, 2, 0.010, Clock())
    assert pace.affordable(0, 8) == 4
    assert Pace([4.0] * 8, False, 2, 0.010, Clock()).affordable(0, 8) == 1


def test_the_first_is_read_even_where_it_does_not_fit() -> None:
    assert Pace([50.0, 1.0], True, 2, 0.010, Clock()).affordable(0, 2) == 1


def test_what_is_remembered_is_free() -> None:
    assert Pace([4.0, 0.0, 0.0, 0.0, 4.0, 4.0], True, 1, 0.0085, Clock()).affordable(0, 6) == 5


def test_a_machine_that_is_slower_today_is_noticed() -> None:
    clock = Clock()
    pace = Pace([4.0] * 8, True, 2, 0.020, clock)
    clock.now = 0.008
    pace.note(0, 2, 0.008)  # twice as long as measured
    assert pace.affordable(2, 8) == 2  # 12 ms left: a round of two takes 8
    clock.now = 0.016
    pace.note(2, 2, 0.008)
    assert pace.affordable(4, 8) == 0
