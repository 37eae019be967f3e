"""Settings measured over one record, each of them once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipelines.evaluation.footprint import bytes_of
from pipelines.tuning.choosing import Scored
from pipelines.tuning.judging import Judge
from pipelines.tuning.record import Record
from pipelines.tuning.replay import Replay
from pipelines.tuning.settings import Setting


@dataclass(slots=True, eq=False)
class Measured:
    """Gives what a setting is worth and what it costs.

    Args:
        record: What was asked of the index.
        replay: Over that record.
        judge: Measures the hits.
        sparse_bytes: Of the BM25 entries of a passage.
        latency_ms: What is allowed; ``None`` for anything.
        on_setting: Called with the number of each new setting.
    """

    record: Record
    replay: Replay
    judge: Judge
    sparse_bytes: float
    latency_ms: float | None
    on_setting: Callable[[int], None]
    known: dict[Setting, Scored | None] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        """How many settings were measured."""
        return sum(scored is not None for scored in self.known.values())

    @property
    def skipped(self) -> int:
        """How many settings would have needed more reading than was meant to be done."""
        return len(self.known) - self.tried

    def scored(self, setting: Setting) -> Scored | None:
        """Quality and cost for each query; ``None`` where more would have to be read than is meant to be."""
        if setting not in self.known:
            self.on_setting(len(self.known))
            self.known[setting] = self._measure(setting)
        return self.known[setting]

    def budgets(self, scored: Scored) -> list[float]:
        """Budgets that leave a half and a quarter of the reading of a setting, and what a limit leaves for it."""
        setting = scored.setting
        if not setting.depth:
            return []
        first = self.record.first_stage_ms(setting.variant, setting.fusion)
        reading = float(np.median(scored.milliseconds - first))
        wanted = [reading / 2, reading / 4]
        if self.latency_ms is not None:
            wanted.append(self.latency_ms - float(np.median(first)))
        return sorted({_rounded(budget) for budget in wanted if budget >= 1})

    def _measure(self, setting: Setting) -> Scored | None:
        replayed = self.replay.run(setting)
        if replayed is None:
            return None
        dense = self.record.dense[setting.variant].bytes_per_passage
        return Scored(
            setting,
            self.judge.values(replayed.results),
            replayed.milliseconds,
            bytes_of(setting.fusion.arms, dense, self.sparse_bytes),
            replayed.reranked,
        )


def _rounded(value: float) -> float:
    """Two digits that count, downwards."""
    digits = 10 ** (math.floor(math.log10(value)) - 1)
    return float(math.floor(value / digits) * digits)
