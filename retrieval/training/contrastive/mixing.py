"""Which rows make the batches of an epoch, when several data sets are mixed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.training.contrastive.token_rows import IntArray, RowGroup, TokenRows

Sampling = Literal["proportional", "round_robin"]

_RETRIED = 4  # batches' worth of rows that were put off and are tried again for each batch


class MixedBatches:
    """Batches of row numbers, each from one group, the same for the same seed and epoch.

    In a batch no text appears in two rows as query or positive, because the loss takes the positives of other rows as
    negatives. Rows that find no such batch wait for the next epoch. Batches of a group are of about equal size.

    ``proportional``: in an epoch every group is gone through ``weight`` times (0.5: half of its batches; 2: twice).
    ``round_robin``: groups take turns, ``weight`` batches each, until one of them is used up.

    Args:
        rows: The rows and their groups.
        batch_size: Rows in a batch, at most.
        sampling: How groups are mixed.
        seed: Of the order.
    """

    def __init__(self, rows: TokenRows, batch_size: int, sampling: Sampling, seed: int) -> None:
        self._rows = rows
        self.batch_size = batch_size
        self.drop_last = False
        self._sampling = sampling
        self._seed = seed
        self._counts = _batches_of_groups(rows.groups, batch_size, sampling)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are yielded."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[list[int]]:
        groups = [self._group_batches(number) for number in range(len(self._counts))]
        for number in self._turns():
            yield next(groups[number])

    def _turns(self) -> list[int]:
        if self._sampling == "proportional":
            turns = np.repeat(np.arange(len(self._counts)), self._counts)
            generator = np.random.default_rng((self._seed, self.epoch))
            return [int(number) for number in generator.permutation(turns)]
        places = [((turn + 0.5) / count, number) for number, count in enumerate(self._counts) for turn in range(count)]
        return [number for _, number in sorted(places)]

    def _group_batches(self, number: int) -> Iterator[list[int]]:
        """Batches of a group without end; it is shuffled again each time it is used up."""
        group = self._rows.groups[number]
        size = group.end - group.start
        repetition = 0
        while True:
            generator = np.random.default_rng((self._seed, self.epoch, number, repetition))
            order = group.start + generator.permutation(size)
            yield from self._different(order, -(-size // self.batch_size))
            repetition += 1

    def _different(self, order: IntArray, batches: int) -> Iterator[list[int]]:
        """So many batches of rows without a common text, at least one row in each."""
        size = -(-len(order) // batches)
        fresh = iter(order.tolist())
        put_off: deque[int] = deque()
        for _ in range(batches):
            batch: list[int] = []
            used: set[int] = set()
            for _ in range(min(len(put_off), _RETRIED * size)):
                self._take(put_off.popleft(), batch, used, put_off, size)
            while len(batch) < size and (row := next(fresh, None)) is not None:
                self._take(row, batch, used, put_off, size)
            yield batch

    def _take(self, row: int, batch: list[int], used: set[int], put_off: deque[int], size: int) -> None:
        texts = self._rows.texts[row, :2].tolist()
        if len(batch) < size and used.isdisjoint(texts):
            batch.append(row)
            used.update(texts)
        else:
            put_off.append(row)


def _batches_of_groups(groups: tuple[RowGroup, ...], batch_size: int, sampling: Sampling) -> list[int]:
    """How many batches each group gives in an epoch."""
    whole = [-(-(group.end - group.start) // batch_size) for group in groups]
    if sampling == "proportional":
        return [max(1, round(count * group.weight)) for count, group in zip(whole, groups, strict=True)]
    rounds = min((count / group.weight for count, group in zip(whole, groups, strict=True)), default=0.0)
    return [max(1, round(rounds * group.weight)) for group in groups]


def candidate_columns(texts: NDArray[np.int32]) -> NDArray[np.int32]:
    """The texts of a batch without hard negatives that are the positive of another row of it.

    Args:
        texts: (rows, 2 + negatives), numbers of query, positive and negatives.

    Returns:
        The same shape; such a negative is replaced by one of the other rows that is none. A column without such a
        replacement is left out. -1, for none, is replaced as well.
    """
    taken = set(texts[:, 1].tolist())
    columns = [texts[:, 0], texts[:, 1]]
    for column in texts[:, 2:].T:
        wrong = np.array([number < 0 or number in taken for number in column.tolist()])
        usable = np.flatnonzero(~wrong)
        if len(usable):
            replaced = column.copy()
            replaced[wrong] = column[np.resize(usable, int(wrong.sum()))]
            columns.append(replaced)
    return np.stack(columns, axis=1)
