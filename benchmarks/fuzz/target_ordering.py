"""Fusion, order, ties, ids and reading: the order of what comes in never changes what goes out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.filter_trees import point_id
from benchmarks.fuzz.target import Check, Target
from pipelines.points import passage_id
from retrieval.config import FirstStageConfig
from retrieval.datatypes import FloatArray, ScoredPoint
from retrieval.ordering import fuse, order, scale_to_unit
from retrieval.rerankers import Forecast, LikelySettled, ReadingTask, read_candidates, read_together
from retrieval.stores.json_files import ids_digest
from retrieval.stores.ties import MARGIN, best_first, close_tie, count_values, most_frequent

_SCORES = (0.0, 1.0, 0.5, -0.0, 1e-300, 1e300, -1e300, 0.1 + 0.2, 0.3)


def _score(choices: Choices) -> float:
    value = choices.pick(_SCORES) if choices.chance() else choices.real()
    return value if math.isfinite(value) else 0.0


def _points(choices: Choices) -> list[ScoredPoint]:
    return choices.list_of(lambda: ScoredPoint(point_id(choices.byte() % 20), _score(choices)), 12)


def _fusion(folder: Path, stack: ExitStack) -> Check:
    def check(data: bytes) -> None:
        choices = Choices(data)
        config = FirstStageConfig(
            fusion=choices.pick(("minmax", "rrf")),
            dense_weight=choices.pick((None, 0.0, 0.3, 0.5, 1.0)),
            candidates=choices.whole(1, 20),
        )
        draw = random.Random(choices.byte())
        arms = {"dense": _points(choices), "bm25": _points(choices)}
        fused = fuse(arms, config)  # type: ignore[arg-type]
        shuffled = {name: draw.sample(points, len(points)) for name, points in reversed(arms.items())}
        assert fuse(shuffled, config) == fused, "the order of the points decides"  # type: ignore[arg-type]
        assert [each.rank for each in fused] == list(range(1, len(fused) + 1))
        scores = [each.score for each in fused]
        assert scores == sorted(scores, reverse=True)
        assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores), f"scores {scores}"
        there = {point.id for points in arms.values() for point in points}
        assert len(fused) == min(len(there), config.candidates)
        assert {each.id for each in fused} <= there
        whole = fuse(arms, config.model_copy(update={"candidates": 10_000}))  # type: ignore[arg-type]
        assert whole[: len(fused)] == fused, "a shorter list is not the beginning of a longer one"

    return check


def _order(folder: Path, stack: ExitStack) -> Check:
    def check(data: bytes) -> None:
        choices = Choices(data)
        rows = choices.list_of(lambda: (_score(choices), choices.byte() % 4, choices.text(2)), 12)
        rows = list(dict.fromkeys(rows))
        draw = random.Random(choices.byte())
        mixed = draw.sample(rows, len(rows))

        def sorted_rows(given: Sequence[tuple[float, int, str]]) -> list[tuple[float, int, str]]:
            columns = [list(column) for column in zip(*given, strict=True)] or [[], [], []]
            return [given[at] for at in order(*columns)]  # type: ignore[arg-type]

        assert [(row[0] + 0.0, *row[1:]) for row in sorted_rows(rows)] == [
            (row[0] + 0.0, *row[1:]) for row in sorted_rows(mixed)
        ]
        scaled = scale_to_unit([row[0] for row in rows])
        assert all(0 <= value <= 1 for value in scaled), f"{scaled}"
        for one, a in zip(rows, scaled, strict=True):
            for other, b in zip(rows, scaled, strict=True):
                assert one[0] <= other[0] or a >= b, "scaling turns the order around"

    return check


def _ties(folder: Path, stack: ExitStack) -> Check:
    """An engine that breaks ties as it likes gives the same first points as one sort over everything."""

    def check(data: bytes) -> None:
        choices = Choices(data)
        steps, limit = choices.whole(1, 6), choices.whole(1, 40)
        scores = [choices.byte() % steps / 4 for _ in range(choices.whole(0, 120))]
        points = [ScoredPoint(point_id(number), score) for number, score in enumerate(scores)]
        draw = random.Random(choices.byte())

        def ask(window: int) -> list[ScoredPoint]:
            mixed = draw.sample(points, len(points))
            return sorted(mixed, key=lambda point: -point.score)[:window]

        kept = close_tie(ask, ask(limit + MARGIN), limit, lambda point: point.score)
        assert best_first(kept, limit) == best_first(points, limit)
        rows = [[draw.choice((1, True, "1", "a", 0, False)) for _ in range(3)] for _ in range(limit)]
        counts = most_frequent(count_values(rows), 10)
        again = most_frequent(count_values(draw.sample(rows, len(rows))), 10)
        assert [(type(v), v, n) for v, n in counts] == [(type(v), v, n) for v, n in again]

    return check


def _ids(folder: Path, stack: ExitStack) -> Check:
    """Different passages have different ids, the same passage has the same; a digest of ids has no order."""
    seen: dict[str, tuple[str, str, int]] = {}

    def check(data: bytes) -> None:
        choices = Choices(data)
        key, index = choices.clean_text(8), choices.number() % 2**31
        digest = f"{choices.number() % 2**64:016x}"
        name = passage_id(key, digest, index)
        assert len(name) == 36
        assert name == passage_id(key, digest, index)
        if len(seen) > 200_000:
            seen.clear()
        assert seen.setdefault(name, (key, digest, index)) == (key, digest, index), "two passages with one id"
        names = [passage_id(key, digest, place) for place in range(choices.byte() % 6)]
        whole = ids_digest(names)
        assert whole == ids_digest(reversed(names))
        assert ids_digest([*names, name, name]) == whole
        assert len(whole) == 32

    return check


class _Scripted:
    """A cross-encoder whose logit of a text is the text."""

    name = "scripted"

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return np.array([float(text) for text in texts], np.float32)


def _reading(folder: Path, stack: ExitStack) -> Check:
    """Stopping early promises what it says, and queries read side by side come out as each alone."""

    def task(choices: Choices) -> ReadingTask:
        logits = choices.list_of(lambda: f"{(choices.byte() - 128) / 16}", 16)
        first = sorted((choices.byte() / 255 for _ in range(len(logits) + choices.whole(0, 4))), reverse=True)
        groups = None if choices.chance() else [choices.byte() % 5 for _ in first]
        likely = LikelySettled(Forecast(choices.byte() / 64 - 2, -1.0, 1.0, 0.1, "drawn"), 0.1)
        stop = choices.pick((None, "exact", likely))
        weight = choices.pick((0.4, 0.0, 1.0))
        return ReadingTask(
            "q", logits, first, weight, choices.whole(1, 6), groups, batch_size=choices.whole(1, 5), early_stop=stop
        )

    def check(data: bytes) -> None:
        choices = Choices(data)
        tasks = [task(choices) for _ in range(choices.whole(1, 3))]
        reranker = _Scripted()
        readings = list(read_together(tasks, reranker))
        for one, reading in zip(tasks, readings, strict=True):
            assert next(iter(read_together([one], reranker))) == reading, "the neighbours change a reading"
            assert len(reading.scores) == len(one.first_stage)
            assert all(math.isfinite(score) for score in reading.scores)
            if one.early_stop == "exact":
                everything = read_candidates(
                    one.query, one.texts, one.first_stage, reranker, first_stage_weight=one.first_stage_weight,
                    top_k=one.top_k, groups=one.groups, batch_size=one.batch_size, early_stop=None,
                )  # fmt: skip
                assert _top(one, reading.scores) == _top(one, everything.scores), "stopping early changes the top"

    return check


def _top(task: ReadingTask, scores: Sequence[float]) -> list[int]:
    places = order(scores, range(len(scores)), [str(at) for at in range(len(scores))])
    groups = task.groups or list(range(len(scores)))
    best: dict[object, int] = {}
    for place in places:
        best.setdefault(groups[place], place)
    return list(best.values())[: task.top_k]


TARGETS = [
    Target("fusion", "permuting the arms changes nothing; ranks, bounds, prefixes", _fusion, longest=200, weight=1.5),
    Target("order", "permuting changes nothing; scaling keeps the order", _order, longest=200),
    Target("ties", "the cut of a tie is decided here, not by the engine", _ties, longest=160),
    Target("ids", "stable, unique, without order", _ids, longest=60),
    Target("reading", "stopping early and neighbours change no result", _reading, longest=160),
]
