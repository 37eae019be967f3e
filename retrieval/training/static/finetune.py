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
from retrieval.training.static.cloze import Cloze
from retrieval.training.static.lessons import Lessons, TaughtTexts, sum_rows, token_ids
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
        unlabelled: Part of the steps whose pairs are a sentence and the rest of its passage; needs passages.
        teacher_weight: Weight of the loss on the teacher's texts beside the loss on the pairs, which has 1.
        teacher_batch: Texts of the teacher a step, at most all.
        teacher_temperature: Cosines of the teacher and of the table are divided by it.
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
    unlabelled: float = 0.33
    teacher_weight: float = 0.5
    teacher_batch: int = 1024
    teacher_temperature: float = 0.05
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
    *,
    passages: Sequence[str] = (),
    taught: TaughtTexts | None = None,
) -> StaticTable:
    """Train the vectors and weights of all tokens so that a query is closest to its own passage.

    Passages of one document are never negatives of each other; a pair without documents has its positive as document.

    Args:
        table: Where to start; it is not changed.
        pairs: Queries with their passages.
        settings: See `FinetuneSettings`.
        on_progress: Told how far it is.
        passages: Texts without labels; in some steps a sentence asks for the rest of its passage.
        taught: Texts with a teacher's vectors, whose similarities are learned in the same steps; ``None`` for none.

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
    cloze = Cloze(table, passages, settings.max_tokens)
    lessons = None if taught is None else Lessons(table, taught, settings.teacher_batch, settings.teacher_temperature)
    generator = np.random.default_rng(settings.seed)
    vectors = torch.nn.Parameter(torch.from_numpy(table.vectors.copy()))
    weights = torch.nn.Parameter(torch.zeros(len(table.vectors), 1))
    groups = [(vectors, settings.learning_rate), (weights, settings.weight_learning_rate)]
    optimizer = torch.optim.Adam(
        [{"params": [parameter], "lr": rate} for parameter, rate in groups], betas=(0.9, 0.98), fused=True
    )
    plan = plan_steps(data.sources, settings, generator, unlabelled=len(cloze) > 1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, len(plan), settings))
    losses: list[float] = []
    for step, rows in enumerate(plan, 1):
        now = vectors * weights.exp()
        batch = data.batch(rows, generator) if rows is not None else data.cloze(cloze, generator)
        loss = _batch_loss(now, batch, settings)
        if lessons is not None:
            loss = loss + settings.teacher_weight * lessons.loss(now, settings.matryoshka, generator)
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
    return table.with_vectors(trained)


def plan_steps(
    sources: IntArray, settings: FinetuneSettings, generator: np.random.Generator, *, unlabelled: bool
) -> list[IntArray | None]:
    """What each step reads: rows of the pairs, or ``None`` where passages give the pairs."""
    plan: list[IntArray | None] = []
    for _ in range(settings.epochs):
        plan.extend(plan_batches(sources, settings, generator))
    if unlabelled:
        extra = round(len(plan) * settings.unlabelled / (1.0 - settings.unlabelled))
        for place in sorted(generator.integers(0, len(plan) + 1, extra), reverse=True):
            plan.insert(int(place), None)
    return plan


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
    same: NDArray[np.bool_]  # (queries, documents): not the query's positive, but of the same document


class _Tokenized:
    """Pairs as token ids."""

    def __init__(self, table: StaticTable, pairs: Sequence[Pair], settings: FinetuneSettings) -> None:
        self.settings = settings
        names = {name: index for index, name in enumerate(dict.fromkeys(pair.source for pair in pairs))}
        self.sources = np.array([names[pair.source] for pair in pairs])
        self.queries = token_ids(table, [pair.query for pair in pairs], settings.max_tokens)
        texts: dict[str, int] = {}
        self.positives = np.array([texts.setdefault(pair.positive, len(texts)) for pair in pairs])
        wanted = settings.hard_negatives > 0
        self.negatives = [
            np.array([texts.setdefault(text, len(texts)) for text in pair.negatives] if wanted else [], dtype=np.int64)
            for pair in pairs
        ]
        groups: dict[str, int] = {}
        documents = {pair.positive: pair.documents[0] for pair in pairs if pair.documents}
        self.documents = np.array([groups.setdefault(documents.get(text, text), len(groups)) for text in texts])
        self.texts = token_ids(table, list(texts), settings.max_tokens)

    def batch(self, rows: IntArray, generator: np.random.Generator) -> _Batch:
        positives = self.positives[rows]
        chosen = [
            generator.choice(self.negatives[row], min(self.settings.hard_negatives, len(self.negatives[row])), False)
            for row in rows
            if len(self.negatives[row])
        ]
        documents = np.concatenate([positives, *chosen])
        same = self.documents[positives][:, None] == self.documents[documents][None, :]
        np.fill_diagonal(same, False)
        queries = [self._drop(self.queries[row], generator) for row in rows]
        return _Batch(queries, [self.texts[index] for index in documents], same)

    def cloze(self, passages: Cloze, generator: np.random.Generator) -> _Batch:
        queries, documents = passages.draw(self.settings.batch_size, generator)
        nothing = np.zeros((len(queries), len(documents)), dtype=bool)
        return _Batch([self._drop(ids, generator) for ids in queries], documents, nothing)

    def _drop(self, ids: IntArray, generator: np.random.Generator) -> IntArray:
        if self.settings.query_dropout == 0.0 or len(ids) < 6:
            return ids
        return ids[generator.random(len(ids)) >= self.settings.query_dropout]


def _batch_loss(table: Tensor, batch: _Batch, settings: FinetuneSettings) -> Tensor:
    import torch
    from torch.nn.functional import cross_entropy, normalize

    queries, documents = sum_rows(table, batch.queries), sum_rows(table, batch.documents)
    target = torch.arange(len(batch.queries))
    same = torch.from_numpy(batch.same)
    losses = []
    for dim in settings.matryoshka or (table.shape[1],):
        cosines = normalize(queries[:, :dim], dim=-1) @ normalize(documents[:, :dim], dim=-1).T
        logits = (cosines / settings.temperature).masked_fill(same, -torch.inf)
        back = logits[:, : len(target)].T
        losses.append((cross_entropy(logits, target) + cross_entropy(back, target)) / 2)
    return torch.stack(losses).mean()


def _rate(step: int, steps: int, settings: FinetuneSettings) -> float:
    rise = max(1.0, settings.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    return max(settings.final, 1.0 - (1.0 - settings.final) * (step - rise) / max(1.0, steps - rise))
