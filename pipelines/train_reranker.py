"""From files of pairs or mined lists to a cross-encoder: lists, contrast, teacher, training, rounding, files."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from pipelines.model_folder import refuse_occupied, replacing
from pipelines.pair_files import PairFiles
from pipelines.progress import StepCallback
from pipelines.teacher import TransformerTeacher
from retrieval.config import Bm25Config, RerankConfig
from retrieval.encoders import Bm25Encoder
from retrieval.errors import DocumentError, ModelError
from retrieval.models import find_model
from retrieval.rerankers import open_reranker
from retrieval.training.contrast.lists import ContrastSettings, contrast_lists
from retrieval.training.pairs import Pair, is_held_out
from retrieval.training.reranker.batches import BatchSettings
from retrieval.training.reranker.ensemble import PairScorer, bm25_scorer, cosine_scorer, score_lists
from retrieval.training.reranker.export import ExportSettings, export_reranker
from retrieval.training.reranker.lists import RankingList, read_lists
from retrieval.training.reranker.losses import LossName
from retrieval.training.reranker.network import (
    NetworkShape,
    Parameters,
    load_network,
    open_network,
    save_network,
    scale_head,
)
from retrieval.training.reranker.quantize import Rounding
from retrieval.training.reranker.ranking import fit_head, ranking_accuracy
from retrieval.training.reranker.rerank import RerankProgress, RerankSettings, train_reranker

ENSEMBLE = "ensemble"
"""The teacher made of the cosine of the starting model and BM25."""

_CHECKED = 24
_DEV = 60  # lists; each report reads them all


@dataclass(frozen=True, slots=True)
class RerankerPlan:
    """What to train and from what.

    Args:
        sources: Files of `retrieval mine`, or files and folders of pairs.
        out: Folder for the cross-encoder.
        start: BERT sentence transformer, or a folder with a network of an earlier training: folder or hub name.
        layers: Layers to keep, a number or their numbers from 0; ``None`` keeps all.
        minutes: Time for training.
        epochs: Passes over the lists at most.
        loss: See `RerankSettings`; ``None`` takes ``distil`` with a teacher or scored lists, else ``listwise``.
        teacher: A cross-encoder (bundled name, folder, hub name) or `ENSEMBLE`; ``None`` uses scores of the lists.
        contrast: Share of contrast lists in each step.
        max_tokens: Longest pair.
        float_copy: Write the network in full precision beside the model, to train on later.
        overwrite: Replace the model in ``out``.
        seed: Order, negatives, contrast.
        report_every: Seconds between two reports and checkpoints; ``None`` makes about twenty, at least 30 apart.
    """

    sources: tuple[Path, ...]
    out: Path
    start: str
    layers: int | tuple[int, ...] | None = None
    minutes: float = 45.0
    epochs: int = 3
    loss: LossName | None = None
    teacher: str | None = None
    contrast: float = 0.1
    max_tokens: int = 144
    float_copy: bool = False
    overwrite: bool = False
    seed: int = 0
    report_every: float | None = None


@dataclass(frozen=True, slots=True)
class RerankerReport:
    """What was trained.

    Args:
        out: Folder of the cross-encoder.
        start: What it started from.
        layers: Layers it has.
        lists: Lists that it was trained on.
        without_negatives: How many of them came without negatives.
        contrast_lists: Contrast lists that were made for it.
        held_out: Lists that were held out.
        loss: The loss.
        resumed: Whether it went on from a checkpoint.
        steps: Steps done.
        losses: Step and mean loss of each report.
        devs: Step and mean reciprocal rank on the lists held out, of each report.
        before: That figure of the start.
        after: That figure of what was written, before rounding.
        pairs_per_second: Speed of training at the end.
        roundings: What was tried to round, the last one is in the file; empty when nothing could be compared.
        agreement_wanted: Rank correlation that was asked for.
        seconds: Time of everything.
    """

    out: Path
    start: str
    layers: int
    lists: int
    without_negatives: int
    contrast_lists: int
    held_out: int
    loss: str
    resumed: bool
    steps: int
    losses: tuple[tuple[int, float], ...]
    devs: tuple[tuple[int, float], ...]
    before: float
    after: float
    pairs_per_second: float
    roundings: tuple[Rounding, ...]
    agreement_wanted: float
    seconds: float


def train_reranker_model(
    plan: RerankerPlan, on_progress: StepCallback = lambda stage, done, total: None
) -> RerankerReport:
    """Train a cross-encoder and write it for `open_reranker`.

    Training keeps a checkpoint in ``OUT.training`` beside the folder; the same plan goes on from there after a break.

    Args:
        plan: See `RerankerPlan`.
        on_progress: Told what is under way; while training, the share in percent with loss and held-out figure.

    Raises:
        ValueError: The place is taken, or a setting is out of range.
        DocumentError: A file cannot be read, or there are too few lists.
        ModelError: The start is not a BERT model, or the checkpoint is of another training.
        MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    started = time.monotonic()
    refuse_occupied(plan.out, overwrite=plan.overwrite)
    folder, parameters, shape = _open_start(plan)
    tokenizer = _tokenizer(folder)
    on_progress("reading lists", 0, 0)
    lists, dev = _held_out(_read_sources(plan.sources), plan.seed)
    if plan.teacher is not None:
        lists = _taught(lists, plan.teacher, folder, on_progress)
    settings = _settings(plan, lists)
    contrast = _contrast(lists, plan) if plan.contrast else []
    workplace = plan.out.with_name(f"{plan.out.name}.training")
    workplace.mkdir(parents=True, exist_ok=True)
    checkpoint = workplace / "checkpoint.pt"
    resumed = checkpoint.exists()

    def evaluate(network: Parameters) -> float:
        return ranking_accuracy(network, shape, tokenizer, dev, settings.batch)

    log: list[RerankProgress] = []

    def report(progress: RerankProgress) -> None:
        log.append(replace(progress, parameters={}))
        stage = f"training, loss {progress.loss:.3f}, held out {progress.dev:.3f}"
        on_progress(stage, round(100 * progress.share), 100)

    before = evaluate(parameters)
    trained = train_reranker(
        parameters,
        shape,
        tokenizer,
        lists,
        settings,
        report,
        contrast=contrast,
        evaluate=evaluate,
        checkpoint=checkpoint,
        stop_file=workplace / "stop",
    )
    trained = scale_head(trained, *fit_head(trained, shape, tokenizer, dev, settings.batch))
    on_progress("writing and rounding", 0, 0)
    export = ExportSettings(name=plan.out.name, max_length=max(256, plan.max_tokens))
    result = RerankerReport(
        out=plan.out,
        start=plan.start,
        layers=shape.layers,
        lists=len(lists),
        without_negatives=sum(not item.negatives for item in lists),
        contrast_lists=len(contrast),
        held_out=len(dev),
        loss=settings.loss,
        resumed=resumed,
        steps=log[-1].step if log else 0,
        losses=tuple((entry.step, entry.loss) for entry in log),
        devs=tuple((entry.step, entry.dev) for entry in log if entry.dev is not None),
        before=before,
        after=evaluate(trained),
        pairs_per_second=log[-1].pairs_per_second if log else 0.0,
        roundings=(),
        agreement_wanted=export.agreement,
        seconds=0.0,
    )
    with replacing(plan.out) as place:
        check = [(item.query, (item.positive, *item.negatives)) for item in dev[:_CHECKED]]
        roundings = tuple(export_reranker(trained, shape, tokenizer, place, export, check=check))
        result = replace(result, roundings=roundings, seconds=time.monotonic() - started)
        if plan.float_copy:
            save_network(trained, shape, place)
        record = asdict(result) | {"out": plan.out.name}
        (place / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(workplace, ignore_errors=True)
    return result


def _open_start(plan: RerankerPlan) -> tuple[Path, Parameters, NetworkShape]:
    folder = find_model(plan.start)
    if (folder / "network.json").is_file():
        if plan.layers is not None:
            raise ValueError(f"{plan.start} is a trained network: its layers cannot be chosen again")
        return folder, *open_network(folder)
    return folder, *load_network(folder, layers=plan.layers)


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelError(f"{folder} has no readable tokenizer.json: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_sources(sources: Sequence[Path]) -> list[RankingList]:
    lists: list[RankingList] = []
    for source in sources:
        if source.is_file() and _has_lists(source):
            lists += read_lists(source)
        else:
            pairs = PairFiles([source])
            lists += [RankingList(pair.query, pair.positive, pair.negatives, pair.source) for pair in pairs]
    return lists


def _has_lists(path: Path) -> bool:
    """Whether the first row has the negatives that a list must have."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        return False
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            return "negatives" in json.loads(next(lines, "{}"))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DocumentError(f"{path} cannot be read as JSON lines: {error}") from error


def _held_out(lists: list[RankingList], seed: int) -> tuple[list[RankingList], list[RankingList]]:
    """Lists to train on and lists to measure with; a list without negatives is measured against other passages."""
    share = min(0.1, max(0.02, 20 / max(1, len(lists))))
    dev = [item for item in lists if is_held_out(item.query, share)]
    training = [item for item in lists if not is_held_out(item.query, share)]
    if len(dev) < 2 or len(training) < 2:
        raise DocumentError(f"{len(lists)} lists are too few to train on and to measure with: give at least 50")
    generator = random.Random(seed)
    dev = generator.sample(dev, min(_DEV, len(dev)))
    pool = list(dict.fromkeys(item.positive for item in lists))
    for place, item in enumerate(dev):
        others = [text for text in generator.sample(pool, min(len(pool), 12)) if text != item.positive]
        if len(item.negatives) < 3:
            dev[place] = RankingList(item.query, item.positive, (*item.negatives, *others)[:11], item.source)
    return training, dev


def _settings(plan: RerankerPlan, lists: Sequence[RankingList]) -> RerankSettings:
    taught = any(item.scores for item in lists)
    bare = sum(not item.negatives for item in lists) > len(lists) / 2
    batch = BatchSettings(max_tokens=plan.max_tokens, contrast=plan.contrast, random_negatives=5 if bare else 1)
    return RerankSettings(
        minutes=plan.minutes,
        epochs=plan.epochs,
        batch=batch,
        loss=plan.loss or ("distil" if taught else "listwise"),
        seed=plan.seed,
        report_every=max(30.0, 3.0 * plan.minutes) if plan.report_every is None else plan.report_every,
    )


def _contrast(lists: Sequence[RankingList], plan: RerankerPlan) -> list[RankingList]:
    pairs = [Pair(item.query, item.positive, source=item.source) for item in lists]
    ordinary = {item.query: item.negatives for item in lists}
    return contrast_lists(pairs, ContrastSettings(seed=plan.seed), ordinary=ordinary)


def _taught(lists: Sequence[RankingList], teacher: str, start: Path, on_progress: StepCallback) -> list[RankingList]:
    def told(done: int, of: int) -> None:
        on_progress("asking the teacher", done, of)

    scorers: list[tuple[PairScorer, float]]
    if teacher == ENSEMBLE:
        texts = list(dict.fromkeys(text for item in lists for text in (item.positive, *item.negatives)))
        scorers = [(cosine_scorer(TransformerTeacher(start)), 0.5)]
        scorers += [(bm25_scorer(Bm25Encoder(Bm25Config()), texts), 0.5)]
    else:
        folder = find_model(teacher)
        scorers = [(open_reranker(RerankConfig(model=teacher), folder).score, 1.0)]
    return score_lists(lists, scorers, on_progress=told)
