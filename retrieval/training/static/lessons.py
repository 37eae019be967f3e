"""What a teacher says about texts, and how a static model learns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.training.table import StaticTable

if TYPE_CHECKING:
    from torch import Tensor

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TaughtTexts:
    """Short texts, each with a teacher's vector.

    Args:
        texts: Queries or sentences; what they have in common is learned, so they should be of the same subjects.
        vectors: float32 (texts, dimensions of the teacher), rows at unit length.

    Raises:
        ValueError: There are fewer than two texts, or not as many vectors as texts.
    """

    texts: Sequence[str]
    vectors: FloatArray

    def __post_init__(self) -> None:
        if len(self.texts) < 2:
            raise ValueError(f"learning from a teacher needs at least two texts, got {len(self.texts)}")
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.texts):
            raise ValueError(f"{len(self.texts)} texts need as many vectors, not an array of {self.vectors.shape}")


class Lessons:
    """Batches of taught texts and their loss: the neighbours of a text in the table's space are those of the teacher.

    Args:
        table: Tokenizes the texts; those without a known token are left out.
        taught: The texts.
        batch_size: Texts a step.
        temperature: Cosines are divided by it before they become the probability of being a neighbour.

    Source:
        Similarity-preserving distillation as in https://arxiv.org/abs/1902.03393 and https://arxiv.org/abs/2010.11386
    """

    def __init__(self, table: StaticTable, taught: TaughtTexts, batch_size: int, temperature: float) -> None:
        ids = token_ids(table, taught.texts)
        known = [row for row, tokens in enumerate(ids) if len(tokens)]
        self._ids = [ids[row] for row in known]
        self._vectors = np.asarray(taught.vectors, dtype=np.float32)[known]
        self._batch_size = min(batch_size, len(known))
        self._temperature = temperature

    def loss(self, vectors: Tensor, dims: Sequence[int], generator: np.random.Generator) -> Tensor:
        """Mean cross-entropy of the teacher's neighbours in one random batch, over the numbers of leading dimensions.

        Args:
            vectors: Token vectors (vocabulary, dim) with their weights.
            dims: Numbers of leading dimensions; empty for all of them alone.
            generator: Draws the batch.
        """
        import torch
        from torch.nn.functional import log_softmax, normalize, softmax

        rows = generator.choice(len(self._ids), self._batch_size, replace=False)
        itself = torch.eye(len(rows), dtype=torch.bool)
        said = torch.from_numpy(self._vectors[rows])
        wanted = softmax((said @ said.T / self._temperature).masked_fill(itself, -1e4), dim=1)
        sums = sum_rows(vectors, [self._ids[row] for row in rows])
        losses = []
        for dim in dims or (vectors.shape[1],):
            units = normalize(sums[:, :dim], dim=-1)
            found = log_softmax((units @ units.T / self._temperature).masked_fill(itself, -1e4), dim=1)
            losses.append(-(wanted * found).sum(dim=1).mean())
        return torch.stack(losses).mean()


def token_ids(table: StaticTable, texts: Sequence[str], limit: int | None = None) -> list[IntArray]:
    """Ids of the tokens of each text, at most ``limit``."""
    return [np.array(ids[:limit], dtype=np.int64) for ids in table.tokenize(texts)]


def sum_rows(table: Tensor, ids: Sequence[IntArray]) -> Tensor:
    """Sum of the rows of each list of ids (lists, dim)."""
    import torch

    lengths = np.array([len(row) for row in ids])
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    flat = np.concatenate(ids)
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(flat), table, torch.from_numpy(offsets.astype(np.int64)), mode="sum"
    )
