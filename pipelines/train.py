"""From files of pairs to a trained static model: data, start, tokenizer, training with evaluation, files."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pipelines.corpus_texts import CorpusTexts
from pipelines.judged import Judged, Score, measure
from pipelines.train_config import TrainConfig
from pipelines.training_data import TrainingData
from retrieval.config import Config
from retrieval.datatypes import Rejected
from retrieval.models import find_model
from retrieval.training.contrastive.checkpoints import complete_checkpoints, disk_errors
from retrieval.training.contrastive.new_tokenizer import random_vectors, train_tokenizer, transfer_vectors
from retrieval.training.contrastive.training import (
    ContrastiveResult,
    TooFewPairsError,
    TrainProgress,
    train_contrastive,
)
from retrieval.training.static.formats import save_sentence_transformers
from retrieval.training.table import StaticTable

CHECKPOINTS = "checkpoints"
REPORT = "training.json"

_FEW = 1000


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What was trained.

    Args:
        out: Folder of the model.
        finished: Whether it came to its end; when not, only checkpoints are there.
        start: What it started from.
        tokens: Size of the vocabulary.
        dimensions: Of a vector.
        matryoshka: Numbers of leading dimensions that work alone.
        pairs: Pairs of each data set that were trained on.
        rejected: The first rows that could not be used.
        rejected_count: How many could not be used.
        unknown: Pairs without a word that the model knows.
        step: Steps done.
        steps: Steps in all.
        best_step: Step that the model comes from.
        losses: Step and mean loss since the entry before.
        scores: Step and nDCG@10 of each evaluation.
        measured_on: What it was measured on, ``None`` for nothing.
        before: Of the start, with all dimensions.
        after: Of the model as written, with each of ``matryoshka``.
        device: Where it was trained.
        precision: Number format of the training.
        seconds: Time of the steps and evaluations of this run.
        warnings: What a person should know.
        config: All settings.
    """

    out: Path
    finished: bool
    start: str
    tokens: int
    dimensions: int
    matryoshka: tuple[int, ...]
    pairs: dict[str, int]
    rejected: tuple[Rejected, ...]
    rejected_count: int
    unknown: int
    step: int
    steps: int
    best_step: int
    losses: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...]
    measured_on: str | None
    before: Score | None
    after: tuple[Score, ...]
    device: str
    precision: str
    seconds: float
    warnings: tuple[str, ...]
    config: dict[str, Any]


def train_model(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train a static model and write it, in the format of this project, into a folder.

    Args:
        config: Data and settings.
        out: Folder for the model; while it is trained, its checkpoints are in ``checkpoints`` there.
        resume: Go on with a training that was stopped or killed, with the same data and settings.
        on_progress: Told how far it is.
        should_stop: Asked after every step; when true, a checkpoint is written and the report is unfinished.

    Raises:
        ValueError: ``out`` is not empty or holds nothing to resume, there are too few pairs, a setting cannot be used.
        DocumentError: A file is missing, or cannot be used as a whole.
        ModelError: The model to start from is not found or malformed.
        MissingExtraError: The packages of the extra ``train`` are not installed.
        OSError: The disk is full; the last complete checkpoint stays.
    """
    out = Path(out)
    _require_place(out, resume=resume)
    with _no_leftovers(out):
        return _train(config, out, resume, on_progress, should_stop)


def _train(
    config: TrainConfig,
    out: Path,
    resume: bool,
    on_progress: Callable[[TrainProgress], None],
    should_stop: Callable[[], bool],
) -> TrainReport:
    data = TrainingData(config)
    judged: Judged | None = None
    if config.evaluation.collection is not None:
        judged = data.judged = Judged.of_collection(config.evaluation.collection, config.evaluation.split)
    work = out / CHECKPOINTS
    work.mkdir(parents=True, exist_ok=True)
    with disk_errors(work):
        table = _start(config, data, work / "new-tokenizer.json")

    def evaluate(trained: StaticTable) -> float:
        judged = data.judged or data.held_out.judged()
        return math.nan if judged is None else measure(trained, judged).mean

    try:
        result = train_contrastive(
            table,
            data.sets(),
            config.settings(),
            work,
            resume=resume,
            evaluate=evaluate if judged is not None or config.evaluation.held_out > 0 else None,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    except TooFewPairsError as error:
        if not data.rejected:
            raise
        first = f"{data.rejected[0].source}: {data.rejected[0].reason}"
        raise ValueError(f"{error}; {data.rejected_count:,} rows were rejected, the first: {first}") from error
    judged = judged or data.held_out.judged()
    after: tuple[Score, ...] = ()
    if result.table is not None:
        with disk_errors(work):
            written = _write(result, result.table, out, config)
        if judged is not None:
            after = tuple(measure(written, judged, size) for size in result.matryoshka)
    before = measure(table, judged) if judged is not None and result.finished else None
    report = _report(config, out, table, data, result, judged, before, after)
    if result.finished:
        (out / REPORT).write_text(json.dumps(asdict(report), indent=1, default=str) + "\n", encoding="utf-8")
        if not config.output.keep_checkpoints:
            shutil.rmtree(work)
    return report


def _require_place(out: Path, *, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the model")
    begun, done = (out / CHECKPOINTS).is_dir(), (out / REPORT).is_file()
    if resume and done:
        raise ValueError(f"the training in {out} came to its end; there is nothing to resume")
    if resume and not begun:
        raise ValueError(f"{out} holds no training to resume; leave --resume out to start one")
    if not resume and out.exists() and any(out.iterdir()):
        remedy = "go on with --resume, or name another folder" if begun and not done else "name another folder"
        kind = "holds a training that was stopped" if begun and not done else "is not empty"
        raise ValueError(f"{out} {kind}; {remedy}")


@contextmanager
def _no_leftovers(out: Path) -> Iterator[None]:
    """After an error before the first checkpoint, nothing is left that would be in the way of the next try."""
    there = out.exists()
    try:
        yield
    except BaseException:
        work = out / CHECKPOINTS
        if work.is_dir() and not complete_checkpoints(work):
            shutil.rmtree(work, ignore_errors=True)
            if not there and not any(out.iterdir()):
                out.rmdir()
        raise


def _start(config: TrainConfig, data: TrainingData, tokenizer_file: Path) -> StaticTable:
    """The model to start from, with a new tokenizer when one is asked for; it is kept for a run that is resumed."""
    start, seed = config.start, config.training.seed
    table = None if start.model is None else StaticTable.from_encoder_folder(find_model(start.model))
    if table is not None and table.rules.skip is not None:
        table = StaticTable(table.vectors, table.tokenizer)  # limits of length are not for a model trained anew
    if config.tokenizer.size is None:
        assert table is not None  # the configuration sees to it
        if not start.random:
            return table
        return table.with_vectors(random_vectors(len(table.vectors), start.dimensions, seed))
    if tokenizer_file.is_file():
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    else:
        corpus = CorpusTexts.of_paths(tuple(map(Path, config.tokenizer.corpus)), Config())
        tokenizer = train_tokenizer(chain(data.texts(), corpus()), config.tokenizer.size, config.tokenizer.kind)
        partial = tokenizer_file.with_suffix(".partial")
        tokenizer.save(str(partial))
        partial.rename(tokenizer_file)
    if table is None or start.random:
        return StaticTable(random_vectors(tokenizer.get_vocab_size(), start.dimensions, seed), tokenizer)
    return StaticTable(transfer_vectors(table, tokenizer, seed), tokenizer)


def _write(result: ContrastiveResult, table: StaticTable, out: Path, config: TrainConfig) -> StaticTable:
    """Write the model; returns it as it reads, rounded."""
    table.save(out, name=config.output.name or out.resolve().name, matryoshka=result.matryoshka)
    written = StaticTable.from_encoder_folder(out)
    if config.output.sentence_transformers:
        save_sentence_transformers(written, out / "sentence-transformers")
    return written


def _report(
    config: TrainConfig,
    out: Path,
    table: StaticTable,
    data: TrainingData,
    result: ContrastiveResult,
    judged: Judged | None,
    before: Score | None,
    after: tuple[Score, ...],
) -> TrainReport:
    return TrainReport(
        out=out,
        finished=result.finished,
        start="random vectors" if config.is_random else str(config.start.model),
        tokens=len(table.vectors),
        dimensions=table.vectors.shape[1],
        matryoshka=result.matryoshka,
        pairs=result.rows,
        rejected=tuple(data.rejected),
        rejected_count=data.rejected_count,
        unknown=result.unknown,
        step=result.step,
        steps=result.steps,
        best_step=result.best_step,
        losses=result.losses,
        scores=result.scores,
        measured_on=None if judged is None else judged.name,
        before=before,
        after=after,
        device=result.device,
        precision=result.precision,
        seconds=result.seconds,
        warnings=_warnings(result, judged, before, after),
        config=config.model_dump(mode="json"),
    )


def _warnings(
    result: ContrastiveResult, judged: Judged | None, before: Score | None, after: tuple[Score, ...]
) -> tuple[str, ...]:
    warnings = []
    pairs = sum(result.rows.values())
    if pairs < _FEW:
        warnings.append(f"{pairs:,} pairs are few; expect little from fewer than {_FEW:,}")
    if judged is None:
        warnings.append("nothing was measured: no collection was given and no pairs were held out")
    elif before is not None and after and after[0].mean < before.mean:
        warnings.append("the model is worse than what it started from; train with a lower learning rate or other data")
    return tuple(warnings)
