"""Adapt an index to its own documents: train the static model on them, make all vectors anew, and switch.

The old vectors serve until the new ones are complete and checked. Nothing is switched when the self-check of the
training shows a loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from pipelines.generations import Generation, fill_generation
from pipelines.sampling import sample_passages
from retrieval.config import DEFAULT_DENSE_WEIGHT, Config
from retrieval.datatypes import EncoderFingerprint, IndexManifest
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError, StoreError
from retrieval.manifest import same_encoder
from retrieval.models import find_model
from retrieval.protocols import Encoder, SparseEncoder, Store

if TYPE_CHECKING:
    from retrieval.training.adapt import Adaptation, AdaptProgress, CheckRow
    from retrieval.training.table import StaticTable

    AdaptCallback = Callable[[AdaptProgress], None]

SECONDS = 150.0
"""Time limit of sampling and training."""

_PASSAGES = 200_000
_FEWEST_DIMENSIONS = 32
_SUFFIX = "-adapted"


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """What adapting an index did.

    Args:
        switched: Whether a new generation is live.
        accepted: Whether the self-check showed no loss.
        reason: One sentence for a person.
        rows: The self-check: held-out pseudo-queries of each kind, before and after.
        generation: Number of the live generation.
        previous: Number of the generation that a rollback returns to, ``None`` when there is none.
        encoder: Name and digest of the live encoder.
        dense_weight: Weight of the dense arm that was chosen for these documents.
        dense_weight_before: The one before.
        steps: Training steps.
        sampled: Passages that the training read.
        encoded: Passages encoded anew.
        training_seconds: Time of sampling, training and checking.
        seconds: Wall-clock time of everything.
    """

    switched: bool
    accepted: bool
    reason: str
    rows: tuple[CheckRow, ...]
    generation: int
    previous: int | None
    encoder: str
    dense_weight: float
    dense_weight_before: float
    steps: int
    sampled: int
    encoded: int
    training_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """How an index is adapted.

    Args:
        seconds: Time limit of sampling and training; encoding comes on top.
        seed: Of the sample and the training.
        passages: At most so many are read.
        steps: Training steps, for a result that does not depend on the speed of the machine; ``None`` for what the
            time allows.
        force: Switch even if the self-check shows a loss.
        dry_run: Train and check, and change nothing.
    """

    seconds: float = SECONDS
    seed: int = 0
    passages: int = _PASSAGES
    steps: int | None = None
    force: bool = False
    dry_run: bool = False


class Adapter:
    """One adaptation of an index that does not change meanwhile; `run` may be called once.

    Args:
        config: Settings of the index.
        encoder: Its live encoder.
        sparse: Its BM25 encoder.
        store: Open store of the live generation.
        manifest: Its manifest.
        on_progress: Called after every step.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        sparse: SparseEncoder,
        store: Store,
        manifest: IndexManifest,
        on_progress: AdaptCallback | None,
    ) -> None:
        self._config = config
        self._encoder = encoder
        self._sparse = sparse
        self._store = store
        self._manifest = manifest
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._check: float | None = None

    def run(self, options: AdaptOptions, teacher: Encoder | None) -> tuple[AdaptReport, Generation | None]:
        """Train, check, and make the next generation where the check allows it.

        Returns:
            The report as it will be true once the generation is live, and that generation; ``None`` when the vectors
            stay.

        Raises:
            ValueError: An option is out of range.
            StoreError: There are too few passages, or the store failed.
            ModelError: The encoder is not a static model that can be trained.
            StoreFullError: Too little disk is left.
        """
        from retrieval.training.adapt import FEWEST_PASSAGES, AdaptSettings, adapt

        if self._manifest.passages < FEWEST_PASSAGES:
            raise StoreError(
                f"{self._store.location} has {self._manifest.passages} passages, too few to learn from; adapt needs "
                f"at least {FEWEST_PASSAGES}: ingest more documents first"
            )
        if not options.seconds > 0:
            raise ValueError(f"seconds is above 0, not {options.seconds}")
        table = self._table()
        target = None if options.dry_run else self._store.start_generation(self._encoder.dim)
        try:
            if target is not None:
                target.encoder_folder().parent.mkdir(parents=True, exist_ok=True)
            passages = sample_passages(self._store, self._manifest, options.passages, options.seed)
            spent = time.monotonic() - self._started
            settings = AdaptSettings(
                seconds=max(options.seconds - spent, options.seconds / 2),
                passages=options.passages,
                dimensions=matryoshka_of(self._encoder.dim),
                seed=options.seed,
                steps=options.steps,
            )
            adaptation = adapt(
                table, passages, settings, sparse=self._sparse, teacher=teacher, on_progress=self._report
            )
            del passages
            trained = time.monotonic() - self._started
            if target is not None and (adaptation.accepted or options.force):
                trained_table = table.with_vectors(adaptation.table.vectors)
                generation = self._next(target, trained_table, adaptation.dense_weight, settings.dimensions)
                return self._as_report(adaptation, generation, trained), generation
        except BaseException:
            if target is not None:
                target.abandon()
            raise
        if target is not None:
            target.abandon()
        return self._as_report(adaptation, None, trained), None

    def _table(self) -> StaticTable:
        """The table of the live encoder, cut to the dimensions that the index has."""
        from retrieval.training.table import StaticTable

        adapted = self._manifest.adapted_from is not None
        folder = self._store.encoder_folder() if adapted else find_model(self._config.encoder.model)
        dim = self._encoder.dim
        if not same_encoder(StaticEncoder.open(folder, dimensions=dim).fingerprint, self._encoder.fingerprint):
            raise ModelError(
                f"the files of the encoder in {folder} are not those of {self._encoder.fingerprint}, which the index "
                "was opened with; open it again"
            )
        table = StaticTable.from_encoder_folder(folder)
        return table.with_vectors(table.vectors[:, :dim].copy())

    def _next(self, target: Store, table: StaticTable, dense_weight: float, dimensions: tuple[int, ...]) -> Generation:
        manifest = self._manifest
        base = manifest.adapted_from or manifest.encoder
        folder = target.encoder_folder()
        try:
            table.save(folder, name=base.name + _SUFFIX, matryoshka=dimensions)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"cannot write the adapted encoder to {folder}: {error}; nothing was switched") from error
        # Rounded as it is kept: searches will encode with it, so the passages have to.
        encoder = StaticEncoder.open(folder)
        encoded = fill_generation(
            self._store,
            target,
            encoder,
            manifest,
            lambda done, of: self._stage("encoding", done, of),
            graph=manifest.passages >= self._config.hnsw.threshold,
        )
        self._stage("switching", encoded, encoded)
        changed = replace(
            manifest,
            generation=target.generation,
            previous=manifest.generation,
            encoder=encoder.fingerprint,
            adapted_from=base,
            dense_weight=dense_weight,
        )
        return Generation(target, encoder, changed, encoded)

    def _as_report(self, adaptation: Adaptation, generation: Generation | None, trained: float) -> AdaptReport:
        manifest = self._manifest if generation is None else generation.manifest
        given = self._config.first_stage.dense_weight
        before = self._manifest.dense_weight if given is None else given
        stays = generation is None and not adaptation.accepted
        return AdaptReport(
            switched=generation is not None,
            accepted=adaptation.accepted,
            reason=adaptation.reason,
            rows=adaptation.rows,
            generation=manifest.generation,
            previous=manifest.previous,
            encoder=short_name(manifest.encoder),
            dense_weight=adaptation.start_weight if stays else adaptation.dense_weight,
            dense_weight_before=DEFAULT_DENSE_WEIGHT if before is None else before,
            steps=adaptation.steps,
            sampled=adaptation.passages,
            encoded=0 if generation is None else generation.encoded,
            training_seconds=trained,
            seconds=time.monotonic() - self._started,
        )

    def _stage(self, stage: str, done: int, of: int) -> None:
        from retrieval.training.adapt import AdaptProgress

        self._report(AdaptProgress(stage, done, of, None, self._check, 0.0))

    def _report(self, progress: AdaptProgress) -> None:
        self._check = progress.check
        if self._on_progress is not None:
            self._on_progress(replace(progress, seconds=time.monotonic() - self._started))


def matryoshka_of(dim: int) -> tuple[int, ...]:
    """Numbers of leading dimensions that an adapted model is trained to work with alone: all, half, a quarter ..."""
    sizes = [dim]
    while sizes[-1] // 2 >= _FEWEST_DIMENSIONS:
        sizes.append(sizes[-1] // 2)
    return tuple(sizes)


def short_name(encoder: EncoderFingerprint) -> str:
    """Name and digest of an encoder."""
    return f"{encoder.name}@{encoder.digest}"
