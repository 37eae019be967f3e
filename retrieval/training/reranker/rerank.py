"""Training of the cross-encoder on ranking lists."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from retrieval.errors import MissingExtraError
from retrieval.training.reranker.batches import BatchSettings, ListBatch, list_batches, pad_pairs, steps_of_epoch
from retrieval.training.reranker.lists import RankingList
from retrieval.training.reranker.losses import LOSSES, LossName, list_loss
from retrieval.training.reranker.network import NetworkShape, Parameters, score_pairs
from retrieval.training.reranker.rerank_state import TrainingState, read_state, write_state

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_PAIRS_AT_ONCE = 8  # of similar length; more of them means more padding, fewer means smaller matrices


@dataclass(frozen=True, slots=True)
class RerankSettings:
    """How the cross-encoder is trained.

    Args:
        minutes: Time for training; the learning rate falls along this time, whatever the machine manages.
        epochs: Passes over the lists at most.
        batch: What is read of a list, and how many lists make a step.
        loss: See `retrieval.training.reranker.losses.list_loss`; all but ``listwise`` need lists with teacher scores.
        teacher_share: Weight of the teacher in the loss.
        learning_rate: Of the transformer layers at the peak.
        head_learning_rate: Of the head and of what is added to the tokens where the segments meet.
        opening_learning_rate: Of what is added to attention logits across the segments.
        frozen: Lower layers that are not trained, and with the first of them the embeddings; ``None`` freezes those
            that never look across the segments.
        warmup: Part of the time in which the learning rate rises; it falls as a cosine after.
        weight_decay: Of the matrices.
        average: Decay of the moving average of the parameters, which is what is returned.
        bfloat16: Compute matrix products in bfloat16.
        seed: Order of the lists and choice of negatives.
        report_every: Seconds between two reports.

    Raises:
        ValueError: A number is out of range, or the loss is unknown.
    """

    minutes: float = 45.0
    epochs: int = 3
    batch: BatchSettings = BatchSettings()
    loss: LossName = "listwise"
    teacher_share: float = 0.5
    learning_rate: float = 5e-5
    head_learning_rate: float = 2e-3
    opening_learning_rate: float = 2e-2
    frozen: int | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    average: float = 0.99
    bfloat16: bool = True
    seed: int = 0
    report_every: float = 60.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"the loss is one of {', '.join(LOSSES)}, not {self.loss!r}")
        if not self.minutes > 0 or self.epochs < 1:
            raise ValueError(f"minutes and epochs are above 0, not {self.minutes} and {self.epochs}")
        for name, value in (("teacher_share", self.teacher_share), ("contrast", self.batch.contrast)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is a share between 0 and 1, not {value}")


@dataclass(frozen=True, slots=True, eq=False)
class RerankProgress:
    """How far training is.

    Args:
        step: Steps done.
        lists: Lists read, contrast lists included.
        share: Of the whole training, 0 to 1.
        loss: Mean since the last report.
        parameters: Moving average, to be written or measured.
        dev: What ``evaluate`` says of it, ``None`` without.
        pairs_per_second: Since the last report.
    """

    step: int
    lists: int
    share: float
    loss: float
    parameters: Parameters
    dev: float | None = None
    pairs_per_second: float = 0.0


def train_reranker(
    parameters: Parameters,
    shape: NetworkShape,
    tokenizer: Tokenizer,
    lists: Sequence[RankingList],
    settings: RerankSettings = RerankSettings(),
    on_progress: Callable[[RerankProgress], None] | None = None,
    *,
    contrast: Sequence[RankingList] = (),
    evaluate: Callable[[Parameters], float] | None = None,
    checkpoint: Path | None = None,
    stop_file: Path | None = None,
) -> Parameters:
    """Train so that the positive of a list stands above its negatives.

    Args:
        parameters: Where to start (`load_network`); not changed.
        shape: Sizes of the network.
        tokenizer: Without truncation and padding.
        lists: What to learn from.
        settings: See `RerankSettings`.
        on_progress: Called about every ``report_every`` seconds and at the end.
        contrast: Contrast lists, of which every step gets ``settings.batch.contrast``.
        evaluate: Higher is better; asked at every report. The best average is returned then, not the last.
        checkpoint: File in which training stands after every report. Where it exists already, training goes on from
            there, with the same result as without a break, the learning rate by the clock aside.
        stop_file: Training ends, as if time were up, when this file appears.

    Returns:
        The moving average of the parameters.

    Raises:
        MissingExtraError: torch is not installed.
        ValueError: There are no lists, or none has teacher scores and the loss needs them.
        ModelError: The checkpoint is broken, or of a training with other lists, settings or sizes.
    """
    if not lists:
        raise ValueError("training a reranker needs at least one list")
    if settings.loss != "listwise" and not any(item.scores for item in lists):
        raise ValueError(f"the loss {settings.loss!r} needs lists with teacher scores, and none has them")
    try:
        import torch  # noqa: F401  # said here, before anything is read
    except ImportError as error:
        raise MissingExtraError("torch", "train", "training a reranker") from error
    run = _Training(parameters, shape, settings, stop_file)
    identity = f"{shape} {settings} {len(lists)} {len(contrast)} {lists[0].query!r} {lists[-1].query!r}"
    if checkpoint is not None and checkpoint.exists():
        read_state(checkpoint, run.state, identity)
    run.clock = _Clock(settings, steps_of_epoch(len(lists), settings.batch) * settings.epochs, run.state.seconds)
    batches = list_batches(
        lists,
        tokenizer,
        settings.batch,
        epochs=settings.epochs,
        seed=settings.seed,
        contrast=contrast if settings.batch.contrast else (),
        first=run.state.step,
    )
    for batch in batches:
        run.step(batch)
        if run.finished or run.clock.report_is_due():
            progress = run.report(evaluate)
            if checkpoint is not None:
                write_state(checkpoint, run.state, identity)
            if on_progress is not None:
                on_progress(progress)
        if run.finished:
            break
    return run.state.average if run.state.best is None else run.state.best


class _Training:
    """Parameters in training, one step after the other."""

    clock: _Clock

    def __init__(
        self, parameters: Parameters, shape: NetworkShape, settings: RerankSettings, stop_file: Path | None
    ) -> None:
        import torch

        self._shape, self._settings, self._stop_file = shape, settings, stop_file
        current = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        groups = _groups(current, settings, shape.separate if settings.frozen is None else settings.frozen)
        self._peaks = [group["lr"] for group in groups]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        average = {name: tensor.detach().clone() for name, tensor in current.items()}
        self.state = TrainingState(current, average, optimizer)
        self._trained = [name for name, tensor in current.items() if tensor.requires_grad]
        self._losses: list[float] = []
        self._pairs = 0

    def step(self, batch: ListBatch) -> None:
        import torch

        state = self.state
        state.step += 1
        for group, peak in zip(state.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * self.clock.rate(state.step)
        self._losses.append(_train_step(state.current, self._shape, batch, self._settings))
        torch.nn.utils.clip_grad_norm_([state.current[name] for name in self._trained], 1.0)
        state.optimizer.step()
        state.optimizer.zero_grad()
        decay = min(self._settings.average, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            pairs = [(state.average[name], state.current[name].detach()) for name in self._trained]
            torch._foreach_lerp_([old for old, _ in pairs], [new for _, new in pairs], 1.0 - decay)
        state.lists += len(batch.lists)
        self._pairs += len(batch.pairs)

    @property
    def finished(self) -> bool:
        stopped = self._stop_file is not None and self._stop_file.exists()
        return stopped or self.clock.share(self.state.step) >= 1.0

    def report(self, evaluate: Callable[[Parameters], float] | None) -> RerankProgress:
        state = self.state
        speed = self._pairs / self.clock.since_report()
        dev = evaluate(state.average) if evaluate is not None else None
        state.keep_best(dev)
        state.seconds = self.clock.elapsed()
        loss, share = float(np.mean(self._losses)), self.clock.share(state.step)
        logger.debug("step %d, %d lists, loss %.4f, dev %s", state.step, state.lists, loss, dev)
        self._losses, self._pairs = [], 0
        self.clock.report()
        return RerankProgress(state.step, state.lists, share, loss, state.average, dev, speed)


class _Clock:
    """Where training stands between 0 and 1, by time or by steps, whichever is further."""

    def __init__(self, settings: RerankSettings, steps: int, spent: float) -> None:
        self._settings, self._steps = settings, steps
        self._reported = time.monotonic()
        self._start = self._reported - spent

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def share(self, step: int) -> float:
        return min(1.0, max(self.elapsed() / (60.0 * self._settings.minutes), step / self._steps))

    def rate(self, step: int) -> float:
        share, warmup = self.share(step), self._settings.warmup
        if share < warmup:
            return max(0.02, share / warmup)
        return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (share - warmup) / (1.0 - warmup)))

    def report_is_due(self) -> bool:
        return self.since_report() >= self._settings.report_every

    def since_report(self) -> float:
        return max(1e-9, time.monotonic() - self._reported)

    def report(self) -> None:
        self._reported = time.monotonic()


def _groups(parameters: Parameters, settings: RerankSettings, frozen: int) -> list[dict[str, Any]]:
    """Optimiser groups; sets ``requires_grad``."""
    opening: list[Tensor] = []
    head: list[Tensor] = []
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for name, tensor in parameters.items():
        layer = int(name.split(".")[2]) if name.startswith("encoder.layer.") else None
        if frozen > 0 and (name.startswith("embeddings.") if layer is None else layer < frozen):
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

    order = sorted(range(len(batch.pairs)), key=lambda row: len(batch.pairs[row][0]))
    logits: list[Tensor] = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bfloat16):
        for start in range(0, len(order), _PAIRS_AT_ONCE):
            arrays = pad_pairs([batch.pairs[row] for row in order[start : start + _PAIRS_AT_ONCE]])
            logits.append(score_pairs(parameters, shape, *(torch.from_numpy(array) for array in arrays))[:, 0])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    scores = torch.cat(logits).float()[torch.from_numpy(place)]
    losses = [
        list_loss(scores[rows], teacher, settings.loss, settings.teacher_share)
        for rows, teacher in zip(batch.lists, batch.scores, strict=True)
    ]
    loss = torch.stack(losses).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())
