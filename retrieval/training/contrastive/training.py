"""Contrastive training of a static model with the trainer of sentence-transformers, on a GPU or a CPU.

The general way: several data sets, hard negatives, evaluation on the way, checkpoints to go on from. On a CPU and a
set that fits into memory `retrieval.training.static.finetune` reaches about the same in less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.errors import MissingExtraError
from retrieval.training.contrastive.checkpoints import (
    complete_checkpoints,
    disk_errors,
    remove_incomplete,
    require_same_run,
)
from retrieval.training.contrastive.mixing import MixedBatches, Sampling
from retrieval.training.contrastive.token_rows import TokenRows, TokenRowWriter
from retrieval.training.pairs import Pair
from retrieval.training.table import StaticTable

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bf16", "fp16"]

_RUN = "run.json"
_TOKENS = "tokens.bin"
_ONLY_HERE = {"device", "precision", "checkpoint_every", "keep_checkpoints"}  # may differ when a run is resumed


class TooFewPairsError(ValueError):
    """Contrastive training needs at least two pairs."""


@dataclass(frozen=True, slots=True)
class ContrastiveSettings:
    """How token vectors are trained.

    Args:
        epochs: Passes over the data.
        batch_size: Pairs in a batch; the positives of the others are the negatives of each.
        learning_rate: At its peak, for tables whose entries have a root mean square of 1 (the table is brought to
            that, which changes no text vector).
        warmup: Part of the steps in which the learning rate rises; it falls linearly to zero after.
        temperature: Cosines are divided by it.
        symmetric: Also find the query of a passage, not only the passage of a query.
        hard_negatives: How many of a pair's own negatives join the batch.
        matryoshka: The loss is the sum over these numbers of leading dimensions; ``None`` halves the model's from
            its whole size (at most 1024) down to 32, an empty tuple takes the whole size only.
        max_tokens: Longer texts are cut while training.
        sampling: See `retrieval.training.contrastive.mixing.MixedBatches`.
        device: ``auto`` is a CUDA GPU when there is one.
        precision: ``auto`` is bf16 on a GPU that has it, fp16 on another, float32 on a CPU.
        checkpoint_every: Steps between checkpoints, with an evaluation each; ``None`` makes ten in the whole run.
        keep_checkpoints: How many are kept, the best one among them.
        seed: Of the order of the rows.
    """

    epochs: int = 1
    batch_size: int = 1024
    learning_rate: float = 0.05
    warmup: float = 0.1
    temperature: float = 0.05
    symmetric: bool = True
    hard_negatives: int = 1
    matryoshka: tuple[int, ...] | None = None
    max_tokens: int = 256
    sampling: Sampling = "proportional"
    device: Device = "auto"
    precision: Precision = "auto"
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """A data set.

    Args:
        name: For messages and the report.
        pairs: Its pairs; gone through once.
        weight: How often it is used in an epoch, or how many turns it has; above 0.
    """

    name: str
    pairs: Iterable[Pair]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where a training is.

    Args:
        stage: ``reading``, ``training`` or ``checking``.
        done: Pairs read, or steps done.
        of: Steps in all; 0 while reading.
        loss: Mean loss of the last steps, ``None`` before the first.
        score: Last evaluation, ``None`` before the first.
        checkpoint: Step of the last checkpoint, ``None`` before the first.
    """

    stage: Literal["reading", "training", "checking"]
    done: int
    of: int = 0
    loss: float | None = None
    score: float | None = None
    checkpoint: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ContrastiveResult:
    """What a training made.

    Args:
        table: The vectors of the best checkpoint by evaluation; without one, the last.
        matryoshka: Numbers of leading dimensions that were trained to work alone.
        finished: Whether all steps were done; ``table`` is ``None`` when not.
        step: Steps done.
        steps: Steps in all.
        best_step: Step that ``table`` comes from.
        scores: Step and value of each evaluation.
        losses: Step and mean loss since the entry before.
        rows: Pairs of each data set.
        unknown: Pairs without a known token, left out.
        device: ``cpu`` or ``cuda``.
        precision: ``float32``, ``bf16`` or ``fp16``.
        seconds: Time of the steps and evaluations of this call.
    """

    table: StaticTable | None
    matryoshka: tuple[int, ...]
    finished: bool
    step: int
    steps: int
    best_step: int
    scores: tuple[tuple[int, float], ...]
    losses: tuple[tuple[int, float], ...]
    rows: dict[str, int]
    unknown: int
    device: str
    precision: str
    seconds: float


def train_contrastive(
    table: StaticTable,
    sets: Sequence[TrainingSet],
    settings: ContrastiveSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    evaluate: Callable[[StaticTable], float] | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ContrastiveResult:
    """Train token vectors so that a query is closest to its own passage.

    Args:
        table: Where to start; it is not changed.
        sets: The data; the same again to resume.
        settings: See `ContrastiveSettings`.
        folder: Checkpoints go here, and nothing goes elsewhere; created when absent.
        resume: Go on from the last complete checkpoint in ``folder``; from the start when there is none.
        evaluate: Measures a table, higher is better; called at every checkpoint, and after all pairs were read. When
            it has nothing to measure on it returns NaN, and the last checkpoint counts as the best.
        on_progress: Told how far it is.
        should_stop: Asked after every step; when true, a checkpoint is written and the training ends unfinished.

    Raises:
        MissingExtraError: datasets, accelerate or torch is not installed.
        ValueError: A setting cannot be used (a GPU was asked for and none is there, dimensions that the model lacks),
            there are fewer than two pairs, or what is to be resumed was started with other data or settings.
        DocumentError: A data set cannot be read.
        OSError: A checkpoint cannot be written; the last complete one stays.

    Source:
        Multiple negatives ranking loss, https://arxiv.org/abs/1705.00652; Matryoshka, https://arxiv.org/abs/2205.13147;
        the trainer, https://sbert.net/docs/sentence_transformer/training_overview.html
    """
    dimensions = matryoshka_dimensions(settings.matryoshka, table.vectors.shape[1])
    device, precision = _machine(settings.device, settings.precision)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with disk_errors(folder):
        rows, unknown = _read(table, sets, settings, folder, on_progress)
        require_same_run(folder / _RUN, _description(rows, settings), resume=resume)
    remove_incomplete(folder)
    from retrieval.training.contrastive.sentence_trainer import Run, train_rows

    with disk_errors(folder):
        outcome = train_rows(
            Run(
                vectors=_normalized(table.vectors),
                rows=rows,
                batches=MixedBatches(rows, settings.batch_size, settings.sampling, settings.seed),
                settings=replace(settings, matryoshka=dimensions, device=device, precision=precision),
                folder=folder,
                checkpoint=next(iter(complete_checkpoints(folder)), None) if resume else None,
                evaluate=None if evaluate is None else lambda vectors: evaluate(table.with_vectors(vectors)),
                tokenizer=table.tokenizer,
                on_progress=on_progress,
                should_stop=should_stop,
            )
        )
    return ContrastiveResult(
        table=None if outcome.vectors is None else table.with_vectors(outcome.vectors),
        matryoshka=dimensions,
        finished=outcome.vectors is not None,
        step=outcome.step,
        steps=outcome.steps,
        best_step=outcome.best_step,
        scores=outcome.scores,
        losses=outcome.losses,
        rows={group.name: group.end - group.start for group in rows.groups},
        unknown=unknown,
        device=device,
        precision=precision,
        seconds=outcome.seconds,
    )


def matryoshka_dimensions(wanted: tuple[int, ...] | None, dim: int) -> tuple[int, ...]:
    """Numbers of leading dimensions to train, largest first; always with the whole size of the model.

    Raises:
        ValueError: One is below 1 or above the size of the model.
    """
    if wanted is None:
        wanted = tuple(2**power for power in range(5, 11) if 2**power < dim)
    for size in wanted:
        if not 1 <= size <= dim:
            raise ValueError(f"matryoshka dimension {size} is not from 1 to {dim}, the dimensions of the model")
    return tuple(sorted({*wanted, dim}, reverse=True))


def _machine(device: Device, precision: Precision) -> tuple[Literal["cpu", "cuda"], Precision]:
    """The device and number format to use."""
    try:
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
        import torch
    except ImportError as error:
        raise MissingExtraError(error.name or "datasets", "train", "training with sentence-transformers") from error

    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise ValueError("device is 'cuda', but torch finds no CUDA GPU; leave it out to train on the CPU")
    on_gpu = found and device != "cpu"
    if precision == "fp16" and not on_gpu:
        raise ValueError("precision 'fp16' needs a GPU; on a CPU use 'float32', or 'bf16' where it is fast")
    if precision == "auto":
        precision = "float32" if not on_gpu else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return ("cuda" if on_gpu else "cpu"), precision


def _read(
    table: StaticTable,
    sets: Sequence[TrainingSet],
    settings: ContrastiveSettings,
    folder: Path,
    on_progress: Callable[[TrainProgress], None],
) -> tuple[TokenRows, int]:
    """All pairs as token ids, and how many had no known token."""
    read = 0

    def counted(pairs: Iterable[Pair]) -> Iterator[Pair]:
        nonlocal read
        for pair in pairs:
            if read % 1000 == 0:
                on_progress(TrainProgress("reading", read))
            read += 1
            yield pair

    file, limits = folder / _TOKENS, {"negatives": settings.hard_negatives, "max_tokens": settings.max_tokens}
    with TokenRowWriter(table, file, **limits) as writer:
        for part in sets:
            writer.add(part.name, part.weight, counted(part.pairs))
        rows = writer.finish()
    if len(rows.texts) < 2:
        without = f"; {writer.unknown} more have no word that the model knows" if writer.unknown else ""
        raise TooFewPairsError(
            f"contrastive training needs at least 2 pairs, and {len(rows.texts)} can be used{without}"
        )
    return rows, writer.unknown


def _normalized(vectors: FloatArray) -> FloatArray:
    """The table at a root mean square of 1, so that a learning rate means the same for every start."""
    scale = float(np.sqrt(np.mean(vectors.astype(np.float64) ** 2)))
    if not np.isfinite(scale) or scale == 0.0:
        raise ValueError("the vectors to start from are not finite, or all zero")
    return (vectors / scale).astype(np.float32)


def _description(rows: TokenRows, settings: ContrastiveSettings) -> dict[str, Any]:
    """What makes a run the same as another."""
    digest = blake2b(rows.texts.tobytes(), digest_size=8)
    digest.update(rows.tokens.data if len(rows.tokens) else b"")
    return {
        **{key: value for key, value in asdict(settings).items() if key not in _ONLY_HERE},
        "data sets": {group.name: [group.end - group.start, group.weight] for group in rows.groups},
        "data": digest.hexdigest(),
    }
