"""Listwise training of the cross-encoder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from retrieval.errors import MissingExtraError
from retrieval.training.batches import BatchSettings, ListBatch, list_batches, pad_pairs
from retrieval.training.lists import RankingList
from retrieval.training.network import NetworkShape, Parameters, score_pairs

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RerankSettings:
    """How the cross-encoder is trained.

    Args:
        minutes: Time for training; the learning rate falls along this time, whatever the machine manages.
        epochs: Passes over the lists at most.
        batch: What is read of a list, and how many lists make a step.
        learning_rate: Of the transformer layers at the peak.
        head_learning_rate: Of the head and of what is added to the tokens where the segments meet.
        opening_learning_rate: Of what is added to attention logits across the segments.
        frozen: Lower layers that are not trained; the embeddings are frozen with the first.
        warmup: Part of the time in which the learning rate rises; it falls as a cosine after.
        weight_decay: Of the matrices.
        average: Decay of the moving average of the parameters, which is what is returned.
        bfloat16: Compute matrix products in bfloat16.
        seed: Order of the lists and choice of negatives.
        report_every: Seconds between two reports.
    """

    minutes: float = 45.0
    epochs: int = 3
    batch: BatchSettings = BatchSettings()
    learning_rate: float = 5e-5
    head_learning_rate: float = 2e-3
    opening_learning_rate: float = 2e-2
    frozen: int = 3
    warmup: float = 0.05
    weight_decay: float = 0.01
    average: float = 0.99
    bfloat16: bool = True
    seed: int = 0
    report_every: float = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class RerankProgress:
    """How far training is; ``parameters`` is the moving average, to be written or measured."""

    step: int
    lists: int
    share: float
    loss: float
    parameters: Parameters


def train_reranker(
    parameters: Parameters,
    shape: NetworkShape,
    tokenizer: Tokenizer,
    lists: Sequence[RankingList],
    settings: RerankSettings = RerankSettings(),
    on_progress: Callable[[RerankProgress], None] | None = None,
) -> Parameters:
    """Train so that softmax over a list gives the positive all the mass.

    Args:
        parameters: Where to start (`load_network`); not changed.
        shape: Sizes of the network.
        tokenizer: Without truncation and padding.
        lists: What to learn from.
        settings: See `RerankSettings`.
        on_progress: Called about every ``report_every`` seconds and at the end.

    Returns:
        The moving average of the parameters.

    Raises:
        MissingExtraError: torch is not installed.
        ValueError: There are no lists.

    Source:
        ListNet, https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/
    """
    if not lists:
        raise ValueError("training a reranker needs at least one list")
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", "training a reranker") from error

    current = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    groups = _groups(current, settings)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    peaks = [group["lr"] for group in groups]
    average = {name: tensor.detach().clone() for name, tensor in current.items()}
    trained = [name for name, tensor in current.items() if tensor.requires_grad]
    clock = _Clock(settings, math.ceil(len(lists) / settings.batch.lists) * settings.epochs)
    batches = list_batches(lists, tokenizer, settings.batch, epochs=settings.epochs, seed=settings.seed)
    seen = 0
    losses: list[float] = []
    for step, batch in enumerate(batches, 1):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * clock.rate(step)
        losses.append(_train_step(current, shape, batch, settings))
        torch.nn.utils.clip_grad_norm_([current[name] for name in trained], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(settings.average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([average[n] for n in trained], [current[n].detach() for n in trained], 1.0 - decay)
        seen += len(batch.lists)
        finished = clock.share(step) >= 1.0
        if finished or clock.report_is_due():
            loss = float(np.mean(losses))
            logger.debug("step %d, %d lists, loss %.4f", step, seen, loss)
            losses.clear()
            if on_progress is not None:
                on_progress(RerankProgress(step, seen, clock.share(step), loss, average))
        if finished:
            break
    return average


class _Clock:
    """Where training stands between 0 and 1, by time or by steps, whichever is further."""

    def __init__(self, settings: RerankSettings, steps: int) -> None:
        self._settings, self._steps = settings, steps
        self._start = self._reported = time.monotonic()

    def share(self, step: int) -> float:
        elapsed = (time.monotonic() - self._start) / (60.0 * self._settings.minutes)
        return min(1.0, max(elapsed, step / self._steps))

    def rate(self, step: int) -> float:
        share, warmup = self.share(step), self._settings.warmup
        if share < warmup:
            return max(0.02, share / warmup)
        return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (share - warmup) / (1.0 - warmup)))

    def report_is_due(self) -> bool:
        due = time.monotonic() - self._reported >= self._settings.report_every
        if due:
            self._reported = time.monotonic()
        return due


def _groups(parameters: Parameters, settings: RerankSettings) -> list[dict[str, Any]]:
    """Optimiser groups; sets ``requires_grad``."""
    opening: list[Tensor] = []
    head: list[Tensor] = []
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for name, tensor in parameters.items():
        layer = int(name.split(".")[2]) if name.startswith("encoder.layer.") else None
        frozen = name.startswith("embeddings.") if layer is None else layer < settings.frozen
        if frozen and settings.frozen > 0:
            continue
        tensor.requires_grad_(True)
        if name in ("across.opening", "across.match"):
            opening.append(tensor)
        elif name.startswith(("head.", "across.")):
            head.append(tensor)
        else:
            (matrices if tensor.dim() > 1 else rest).append(tensor)
    return [
        {"params": opening, "lr": settings.opening_learning_rate, "weight_decay": 0.0},
        {"params": matrices, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
        {"params": rest, "lr": settings.learning_rate, "weight_decay": 0.0},
        {"params": head, "lr": settings.head_learning_rate, "weight_decay": 0.0},
    ]


def _train_step(parameters: Parameters, shape: NetworkShape, batch: ListBatch, settings: RerankSettings) -> float:
    """Leave the gradient of the mean list loss in the parameters; batches are of similar length to save padding."""
    import torch
    from torch.nn.functional import cross_entropy

    order = sorted(range(len(batch.pairs)), key=lambda row: len(batch.pairs[row][0]))
    logits: list[Tensor] = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bfloat16):
        for start in range(0, len(order), 32):
            arrays = pad_pairs([batch.pairs[row] for row in order[start : start + 32]])
            logits.append(score_pairs(parameters, shape, *(torch.from_numpy(array) for array in arrays))[:, 0])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    scores = torch.cat(logits).float()[torch.from_numpy(place)]
    target = torch.zeros(1, dtype=torch.int64)
    losses = [cross_entropy(scores[rows][None], target) for rows in batch.lists]
    loss = torch.stack(losses).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())
