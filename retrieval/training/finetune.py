"""Contrastive training of a static model on pairs of query and passage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import MissingExtraError
from retrieval.training.pairs import Pair
from retrieval.training.table import StaticTable

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

IntArray = NDArray[np.int64]
Progress = Callable[[int, int, float], None]
"""Called with the steps done, all steps, and the mean loss since the last call."""


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How token vectors are trained.

    Args:
        epochs: Passes over the pairs.
        batch_size: Pairs a step; every other positive of the batch is a negative.
        learning_rate: Of the token vectors at the peak; meant for tables whose entries have a root mean square of 1.
        weight_learning_rate: Of the logarithm of the token weights.
        temperature: Cosines are divided by it.
        matryoshka: The loss is the mean over these numbers of leading dimensions.
        hard_negatives: How many of a pair's own negatives join the batch.
        same_source: Part of the batches that are drawn from a single source, which makes their negatives harder.
        query_dropout: Part of the query tokens that is dropped at random, for pairs with at least six tokens.
        max_tokens: Longer passages are cut.
        warmup: Part of the steps in which the learning rate rises; it falls linearly to ``final`` of its peak after.
        final: Learning rate at the end, as a part of the peak.
        seed: Order of the pairs and dropout.
        report_every: Steps between two progress reports.
    """

    epochs: int = 3
    batch_size: int = 1024
    learning_rate: float = 0.03
    weight_learning_rate: float = 0.01
    temperature: float = 0.05
    matryoshka: tuple[int, ...] = (256, 128, 64, 32)
    hard_negatives: int = 0
    same_source: float = 0.5
    query_dropout: float = 0.0
    max_tokens: int = 256
    warmup: float = 0.05
    final: float = 0.05
    seed: int = 0
    report_every: int = 20


def finetune(
    table: StaticTable,
    pairs: Sequence[Pair],
    settings: FinetuneSettings = FinetuneSettings(),
    on_progress: Progress | None = None,
) -> StaticTable:
    """Train the vectors and weights of all tokens so that a query is closest to its own passage.

    Args:
        table: Where to start; it is not changed.
        pairs: Queries with their passages.
        settings: See `FinetuneSettings`.
        on_progress: Told how far it is.

    Returns:
        The trained table, weights folded into the rows.

    Raises:
        MissingExtraError: torch is not installed.
        ValueError: There are fewer than two pairs.

    Source:
        InfoNCE, https://arxiv.org/abs/1807.03748; Matryoshka, https://arxiv.org/abs/2205.13147
    """
    if len(pairs) < 2:
        raise ValueError(f"contrastive training needs at least two pairs, got {len(pairs)}")
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", "training a static model") from error

    data = _Tokenized(table, pairs, settings)
    generator = np.random.default_rng(settings.seed)
    vectors = torch.nn.Parameter(torch.from_numpy(table.vectors.copy()))
    weights = torch.nn.Parameter(torch.zeros(len(table.vectors), 1))
    optimizer = torch.optim.Adam(
        [
            {"params": [vectors], "lr": settings.learning_rate},
            {"params": [weights], "lr": settings.weight_learning_rate},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    plan = [batch for _ in range(settings.epochs) for batch in plan_batches(data.sources, settings, generator)]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, len(plan), settings))
    losses: list[float] = []
    for step, rows in enumerate(plan, 1):
        loss = _batch_loss(vectors * weights.exp(), data.batch(rows, generator), settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if step % settings.report_every == 0 or step == len(plan):
            logger.debug("step %d of %d, loss %.4f", step, len(plan), np.mean(losses))
            if on_progress is not None:
                on_progress(step, len(plan), float(np.mean(losses)))
            losses.clear()
    trained = (vectors * weights.exp()).detach().numpy().astype(np.float32)
    return StaticTable(trained, table.tokenizer)


def plan_batches(sources: IntArray, settings: FinetuneSettings, generator: np.random.Generator) -> list[IntArray]:
    """Rows of every batch of one epoch; each row is in one batch, batches of a single row are left out."""
    order = generator.permutation(len(sources))
    alone = generator.random(len(order)) < settings.same_source
    batches: list[IntArray] = []
    mixed = [order[~alone]]
    for source in np.unique(sources):
        rows = order[alone & (sources[order] == source)]
        whole = len(rows) // settings.batch_size * settings.batch_size
        batches.extend(rows[start : start + settings.batch_size] for start in range(0, whole, settings.batch_size))
        mixed.append(rows[whole:])
    rest = generator.permutation(np.concatenate(mixed))
    batches.extend(rest[start : start + settings.batch_size] for start in range(0, len(rest), settings.batch_size))
    return [batches[index] for index in generator.permutation(len(batches)) if len(batches[index]) > 1]


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    queries: list[IntArray]
    documents: list[IntArray]  # positives in the order of the queries, then hard negatives
    same: NDArray[np.bool_]  # (queries, documents): the document is another copy of the query's positive


class _Tokenized:
    """Pairs as token ids."""

    def __init__(self, table: StaticTable, pairs: Sequence[Pair], settings: FinetuneSettings) -> None:
        self.settings = settings
        names = {name: index for index, name in enumerate(dict.fromkeys(pair.source for pair in pairs))}
        self.sources = np.array([names[pair.source] for pair in pairs])
        self.queries = _ids(table, [pair.query for pair in pairs], settings.max_tokens)
        texts: dict[str, int] = {}
        self.positives = np.array([texts.setdefault(pair.positive, len(texts)) for pair in pairs])
        wanted = settings.hard_negatives > 0
        self.negatives = [
            np.array([texts.setdefault(text, len(texts)) for text in pair.negatives] if wanted else [], dtype=np.int64)
            for pair in pairs
        ]
        self.texts = _ids(table, list(texts), settings.max_tokens)

    def batch(self, rows: IntArray, generator: np.random.Generator) -> _Batch:
        positives = self.positives[rows]
        chosen = [
            generator.choice(self.negatives[row], min(self.settings.hard_negatives, len(self.negatives[row])), False)
            for row in rows
            if len(self.negatives[row])
        ]
        documents = np.concatenate([positives, *chosen])
        same = positives[:, None] == documents[None, :]
        np.fill_diagonal(same, False)
        queries = [self._drop(self.queries[row], generator) for row in rows]
        return _Batch(queries, [self.texts[index] for index in documents], same)

    def _drop(self, ids: IntArray, generator: np.random.Generator) -> IntArray:
        if self.settings.query_dropout == 0.0 or len(ids) < 6:
            return ids
        return ids[generator.random(len(ids)) >= self.settings.query_dropout]


def _ids(table: StaticTable, texts: Sequence[str], limit: int) -> list[IntArray]:
    return [np.array(ids[:limit], dtype=np.int64) for ids in table.tokenize(texts)]


def _batch_loss(table: Tensor, batch: _Batch, settings: FinetuneSettings) -> Tensor:
    import torch
    from torch.nn.functional import cross_entropy, normalize

    queries, documents = _sum_rows(table, batch.queries), _sum_rows(table, batch.documents)
    target = torch.arange(len(batch.queries))
    same = torch.from_numpy(batch.same)
    losses = []
    for dim in settings.matryoshka or (table.shape[1],):
        cosines = normalize(queries[:, :dim], dim=-1) @ normalize(documents[:, :dim], dim=-1).T
        logits = (cosines / settings.temperature).masked_fill(same, -torch.inf)
        back = logits[:, : len(target)].T
        losses.append((cross_entropy(logits, target) + cross_entropy(back, target)) / 2)
    return torch.stack(losses).mean()


def _sum_rows(table: Tensor, ids: Sequence[IntArray]) -> Tensor:
    import torch

    lengths = np.array([len(row) for row in ids])
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    flat = np.concatenate(ids)
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(flat), table, torch.from_numpy(offsets.astype(np.int64)), mode="sum"
    )


def _rate(step: int, steps: int, settings: FinetuneSettings) -> float:
    rise = max(1.0, settings.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    return max(settings.final, 1.0 - (1.0 - settings.final) * (step - rise) / max(1.0, steps - rise))
