"""From a sentence transformer to a folder with a static model: corpus, vocabulary, distillation, training, files."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.corpus_texts import CorpusTexts
from pipelines.model_folder import refuse_occupied, replacing
from pipelines.progress import StepCallback
from retrieval.datatypes import FloatArray
from retrieval.errors import DocumentError
from retrieval.models import find_model
from retrieval.training.static.distill import (
    Corpus,
    Distilled,
    DistillSettings,
    Vocabulary,
    Weighting,
    distill_vocabulary,
)
from retrieval.training.static.fit import LEAST_SENTENCES, FitSettings, Fitted, fit_sentences, sample_sentences
from retrieval.training.static.formats import save_model2vec, save_sentence_transformers
from retrieval.training.static.vocabulary import PhraseSettings, find_phrases, read_phrases
from retrieval.training.table import Precision, StaticTable
from retrieval.training.teacher import Teacher

if TYPE_CHECKING:
    pass

Format = Literal["two-stage", "model2vec", "sentence-transformers"]

_DIM = 256
_LEAST_TEXTS = 20
_ENCODING_SHARE = 0.7
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class DistillPlan:
    """What is made of which teacher.

    Args:
        teacher: Folder or hub name of a sentence transformer.
        out: Folder of the static model.
        dim: Dimensions; ``None`` for 256, or all where the teacher has fewer.
        vocabulary: ``None`` for ``both`` with a corpus, ``teacher`` without.
        weighting: ``None`` for ``corpus`` with a corpus, ``zipf`` without.
        least: Times that a word of the corpus must occur to get an entry.
        words: At most so many words of the corpus.
        phrases: Text file with entries of several words, one a line.
        find: Negated and frequent phrases of the corpus that become entries; ``None`` for none.
        sentences: Sentences of the corpus to train on, 0 to train on none.
        minutes: Time limit of encoding these sentences and training together.
        format: Which library opens the folder; `StaticEncoder.open` opens all three.
        precision: Of the ``two-stage`` format; the others hold float32.
        overwrite: Replace a model that is there.
        seed: Choice and order of the sentences.
    """

    teacher: str
    out: Path
    dim: int | None = None
    vocabulary: Vocabulary | None = None
    weighting: Weighting | None = None
    least: int = 5
    words: int = 20_000
    phrases: Path | None = None
    find: PhraseSettings | None = None
    sentences: int = 20_000
    minutes: float = 5.0
    format: Format = "two-stage"
    precision: Precision = "int8"
    overwrite: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DistillReport:
    """What was made.

    Args:
        out: The folder.
        format: Its format.
        teacher: Folder of the teacher.
        teacher_dim: Dimensions of the teacher's vectors.
        pooling: How the teacher pools tokens.
        tokens: Entries of the vocabulary.
        words: Words of the corpus among them.
        phrases: Entries of several words among them.
        dim: Dimensions.
        megabytes: Size of the folder.
        texts: Texts of the corpus.
        rejected: Documents that could not be read.
        sentences: Sentences trained on, 0 for none.
        held_out: Sentences measured.
        before: Mean cosine with the teacher on the held-out sentences before training, ``None`` without training.
        after: The same after training.
        seconds: Wall-clock time.
    """

    out: Path
    format: Format
    teacher: str
    teacher_dim: int
    pooling: str
    tokens: int
    words: int
    phrases: int
    dim: int
    megabytes: float
    texts: int
    rejected: int
    sentences: int
    held_out: int
    before: float | None
    after: float | None
    seconds: float


def distill_model(plan: DistillPlan, corpus: CorpusTexts | None, on_progress: StepCallback) -> DistillReport:
    """Distil a teacher into a folder that is there completely or not at all.

    Args:
        plan: What is made.
        corpus: Texts to take words from and to train on; ``None`` distils the teacher alone.
        on_progress: Told how far it is.

    Raises:
        ValueError: The plan cannot be followed; the message says what to change.
        DocumentError: The corpus or the file of phrases cannot be read, or the corpus is too small.
        ModelError: The teacher is not found or cannot be distilled.
        MissingExtraError: A package for training is not installed.
    """
    started = time.monotonic()
    refuse_occupied(plan.out, overwrite=plan.overwrite)
    settings = _settings(plan, corpus)
    phrases = read_phrases(plan.phrases) if plan.phrases is not None else []
    on_progress("opening the teacher", 0, 0)
    teacher = Teacher(find_model(plan.teacher))
    settings = replace(settings, dim=plan.dim if plan.dim is not None else min(_DIM, teacher.dim))
    if corpus is not None:
        corpus.require(_LEAST_TEXTS, on_progress)
        if plan.find is not None:
            on_progress("looking for phrases", 0, 0)
            phrases = list(dict.fromkeys([*phrases, *find_phrases(corpus(), plan.find)]))
    made = distill_vocabulary(teacher, settings, corpus=corpus, phrases=phrases, on_progress=on_progress)
    fitted = None
    if corpus is not None and plan.sentences:
        fitted = _train(plan, made, teacher, corpus, on_progress)
    table = fitted.table if fitted is not None else made.table
    on_progress("writing", 0, 0)
    with replacing(plan.out) as folder:
        _write(table, folder, plan)
    return DistillReport(
        out=plan.out,
        format=plan.format,
        teacher=plan.teacher,
        teacher_dim=teacher.dim,
        pooling=teacher.pooling,
        tokens=len(table.vectors),
        words=made.words,
        phrases=made.phrases,
        dim=settings.dim,
        megabytes=sum(path.stat().st_size for path in plan.out.rglob("*") if path.is_file()) / 2**20,
        texts=corpus.texts if corpus is not None else 0,
        rejected=corpus.rejected if corpus is not None else 0,
        sentences=fitted.sentences if fitted is not None else 0,
        held_out=fitted.held_out if fitted is not None else 0,
        before=fitted.before if fitted is not None else None,
        after=fitted.after if fitted is not None else None,
        seconds=time.monotonic() - started,
    )


def _settings(plan: DistillPlan, corpus: CorpusTexts | None) -> DistillSettings:
    if corpus is None and (
        plan.find is not None or plan.vocabulary in {"both", "corpus"} or plan.weighting == "corpus"
    ):
        raise ValueError("words, phrases and weights of a corpus need one: --corpus PATH, or --index DIR")
    if plan.dim is not None and plan.dim < 2:
        raise ValueError(f"--dim is at least 2, not {plan.dim}")
    if 0 < plan.sentences < LEAST_SENTENCES:
        raise ValueError(f"--sentences is 0 for none, or at least {LEAST_SENTENCES}, not {plan.sentences}")
    return DistillSettings(
        vocabulary=plan.vocabulary or ("both" if corpus is not None else "teacher"),
        weighting=plan.weighting or ("corpus" if corpus is not None else "zipf"),
        least=plan.least,
        words=plan.words,
    )


def _train(plan: DistillPlan, made: Distilled, teacher: Teacher, corpus: Corpus, on_progress: StepCallback) -> Fitted:
    on_progress("sampling sentences", 0, 0)
    sentences = sample_sentences(corpus(), plan.sentences, seed=plan.seed)
    if len(sentences) < LEAST_SENTENCES:
        raise DocumentError(
            f"the corpus has {len(sentences)} different sentences of three words or more; training needs at least "
            f"{LEAST_SENTENCES}, --sentences 0 does without"
        )
    started, parts = time.monotonic(), []
    for start in range(0, len(sentences), _CHUNK):
        parts.append(teacher.encode(sentences[start : start + _CHUNK]))
        on_progress("encoding sentences with the teacher", min(start + _CHUNK, len(sentences)), len(sentences))
        if time.monotonic() - started > plan.minutes * 60 * _ENCODING_SHARE:
            break
    targets = _targets(parts, made)
    left = max(1.0, plan.minutes * 60 - (time.monotonic() - started))
    return fit_sentences(
        made.table,
        sentences[: len(targets)],
        targets,
        FitSettings(seconds=left, seed=plan.seed),
        lambda done, of, cosine: on_progress(f"training, cosine with the teacher {cosine:.3f}, pass", done, of),
    )


def _targets(parts: list[FloatArray], made: Distilled) -> FloatArray:
    """Where the teacher puts the sentences, seen from their mean, in the dimensions of the table."""
    import numpy as np

    vectors = np.concatenate(parts)
    targets: FloatArray = (vectors - vectors.mean(axis=0)) @ made.components
    return targets


def _write(table: StaticTable, folder: Path, plan: DistillPlan) -> None:
    if plan.format == "two-stage":
        table.save(folder, name=plan.out.name, precision=plan.precision)
    elif plan.format == "model2vec":
        save_model2vec(table, folder)
    else:
        save_sentence_transformers(table, folder)
