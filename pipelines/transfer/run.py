"""One copy of an index from one place to another; `pipelines.transfer.push_pull` says what it is for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.index_checks import Check
from pipelines.opening import open_adapted
from pipelines.presence import has_points
from pipelines.progress import StepCallback
from pipelines.transfer.checks import check_copy, check_encoder
from pipelines.transfer.copying import copy_encoder, copy_points
from retrieval.config import Config, QuantizationConfig
from retrieval.datatypes import IndexManifest, Quantization
from retrieval.encoders import StaticEncoder
from retrieval.errors import StoreCorruptError, StoreError
from retrieval.manifest import contents_digest, manifest_from_json, manifest_to_json
from retrieval.protocols import Store
from retrieval.stores import StoredIndex, grow_store, open_store, peek_index


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What a push or a pull did.

    Args:
        source: Folder or URL that was copied.
        target: URL or folder of the copy.
        copied: Whether there was anything to do; false where the target holds the same index already.
        generation: Number of the generation that is live at the target.
        previous: Number of the one that it replaced, where that is kept.
        passages: Passages in the index.
        written: Passages written by this run.
        continued: Passages that an earlier, interrupted run had written.
        checks: What was compared before the copy went live; empty where nothing was copied.
        notes: Sentences for a person.
        seconds: Wall-clock time.
    """

    source: str
    target: str
    copied: bool
    generation: int
    previous: int | None
    passages: int
    written: int
    continued: int
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where an index is: the settings to open it with, and its folder if it has one."""

    config: Config
    folder: Path | None

    def peek(self) -> StoredIndex | None:
        """What is there."""
        return peek_index(self.config, self.folder)

    def open(self, dim: int) -> Store:
        """Its live generation."""
        return open_store(self.config, dim=dim, path=self.folder)


class Transfer:
    """One copy from one place to another.

    Args:
        source: Place of the index.
        target: Place of the copy.
        on_progress: Called with what is under way, how much is done, and of how many.
        keep_previous: Whether the generation that is replaced stays until the next switch.

    Raises:
        StoreError: There is no index at the source, or it is being changed.
    """

    def __init__(self, source: Place, target: Place, on_progress: StepCallback | None, *, keep_previous: bool) -> None:
        stored = source.peek()
        if stored is None or not stored.manifest.passages:
            raise StoreError("the index is empty; there is nothing to copy")
        if stored.manifest.state != "ready":
            raise StoreError(
                f"{stored.location} is being changed, or a change was interrupted ({stored.manifest.state}); "
                "wait for it, or run the same 'retrieval ingest' again, before it is copied"
            )
        self._source, self._target = source, target
        self._stored, self._manifest = stored, stored.manifest
        self._there = target.peek()
        self._digest = contents_digest(stored.manifest)
        self._on_progress = on_progress or (lambda stage, done, total: None)
        self._keep_previous = keep_previous
        self._started = time.monotonic()
        self._notes = list(_differences(stored.manifest, target))

    def run(self, *, replace_other: bool) -> TransferReport:
        """Copy, compare and switch, where there is anything to do.

        Args:
            replace_other: Whether to replace an index that is not a copy of this one, or was changed since.

        Raises:
            RetrievalError: As `pipelines.transfer.push_pull.push_index` and `pull_index`.
        """
        with ExitStack() as stack:
            # A folder does not change while it is open; what has changed until here is noticed at the end.
            source = stack.enter_context(closing(self._source.open(self._manifest.encoder.dim)))
            if self._there is not None and self._is_copied(self._there):
                return self._report(self._there.location, self._there.manifest, copied=False)
            if not replace_other:
                self._require_replaceable()
            target = self._grow(source.quantization, stack)
            try:
                counts, checks = self._fill(source, target)
                self._require_unchanged(target)
            except StoreCorruptError:
                target.abandon()
                raise
            except BaseException:
                target.close()
                raise
            stack.enter_context(closing(target))
            manifest = replace(self._manifest, generation=target.generation, previous=self._previous())
            target.make_live(manifest_to_json(manifest))
            target.tidy()
            live = manifest_from_json(target.read_manifest() or {}, target.location)
            return self._report(target.location, live, copied=True, counts=counts, checks=checks)

    def _is_copied(self, there: StoredIndex) -> bool:
        if there.manifest.state != "ready" or contents_digest(there.manifest) != self._digest:
            return False
        try:
            with closing(self._target.open(there.manifest.encoder.dim)) as store:
                return store.count() == self._manifest.passages
        except StoreCorruptError:
            return False

    def _require_replaceable(self) -> None:
        """Replace only what is a copy of this index, or what this index is a copy of."""
        there, folder = self._there, self._target.folder
        if there is None:
            if folder is not None and has_points(folder):
                raise StoreError(f"{folder} holds a damaged index; --replace lets the copy take its place")
            return
        if there.manifest.passages and there.manifest.state == "ready":
            digest = contents_digest(there.manifest)
            same_line = there.manifest.created == self._manifest.created
            if digest == self._stored.origin or (same_line and digest == there.origin):
                return
        if there.manifest.passages:
            raise StoreError(
                f"{there.location} holds {there.manifest.passages:,} passages that are not a copy of "
                f"{self._stored.location}, or were changed since they were copied; --replace lets this index take "
                "their place"
            )

    def _grow(self, quantization: Quantization, stack: ExitStack) -> Store:
        config, folder, dim = self._target.config, self._target.folder, self._manifest.encoder.dim
        if config.quantization.kind == "auto" and quantization.kind != "none":
            chosen = QuantizationConfig.model_validate(asdict(quantization))
            config = config.model_copy(update={"quantization": chosen})
        if self._manifest.adapted_from is not None:
            open_adapted(self._stored.location, self._stored.encoder_folder)
        if folder is not None:
            target = grow_store(config, dim=dim, path=folder, origin=self._digest)
        else:
            live_dim = dim if self._there is None else self._there.manifest.encoder.dim
            live = stack.enter_context(closing(open_store(config, dim=live_dim)))
            if self._there is None and (count := live.count()):
                raise StoreError(f"{live.location} holds {count:,} points and no manifest; name another collection")
            if self._manifest.adapted_from is not None:
                live.encoder_folder()  # refuses where the configuration names no place
            target = live.start_generation(dim, origin=self._digest)
        if config.quantization.kind != "auto" and target.quantization != config.quantization.record():
            target.set_quantization(config.quantization.record())
        return target

    def _fill(self, source: Store, target: Store) -> tuple[tuple[int, int], tuple[Check, ...]]:
        manifest, checks = self._manifest, list[Check]()
        counts = copy_points(source, target, manifest.passages, self._on_progress)
        if manifest.adapted_from is not None:
            assert self._stored.encoder_folder is not None
            folder = target.encoder_folder()
            copy_encoder(self._stored.encoder_folder, folder)
            checks.append(check_encoder(StaticEncoder.open(folder), manifest))
            if self._target.folder is None:
                self._notes.append(f"every machine that serves the index needs its encoder, {folder}")
        if manifest.passages >= self._target.config.hnsw.threshold or target.quantization.kind != "none":
            self._on_progress("indexing", 0, 0)
            target.optimize()
        target.flush()
        checks.extend(check_copy(source, target, manifest, self._on_progress))
        failed = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
        if failed:
            raise StoreCorruptError(
                f"the copy of {self._stored.location} differs from it ({'; '.join(failed)}); nothing was switched; "
                "run 'retrieval doctor' on the source"
            )
        return counts, tuple(checks)

    def _require_unchanged(self, target: Store) -> None:
        now = self._source.peek()
        if now is None or now.manifest.state != "ready" or contents_digest(now.manifest) != self._digest:
            target.abandon()
            raise StoreError(f"{self._stored.location} was changed while it was copied; run the same command again")
        there, before = self._target.peek(), self._there
        if (None if there is None else there.manifest) != (None if before is None else before.manifest):
            place = (
                before.location if there is None and before is not None else there.location if there else "the target"
            )
            raise StoreError(f"{place} was changed meanwhile; run the same command again")

    def _previous(self) -> int | None:
        there = self._there
        return there.manifest.generation if self._keep_previous and there and there.manifest.passages else None

    def _report(
        self,
        location: str,
        live: IndexManifest,
        *,
        copied: bool,
        counts: tuple[int, int] = (0, 0),
        checks: tuple[Check, ...] = (),
    ) -> TransferReport:
        return TransferReport(
            source=self._stored.location,
            target=location,
            copied=copied,
            generation=live.generation,
            previous=live.previous,
            passages=live.passages,
            written=counts[0],
            continued=counts[1],
            checks=checks,
            notes=tuple(self._notes),
            seconds=time.monotonic() - self._started,
        )


def _differences(manifest: IndexManifest, target: Place) -> Iterator[str]:
    """Settings that a server is searched with and that do not fit; a folder is opened with its own."""
    if target.folder is not None:
        return
    for section in ("encoder", "bm25"):
        asked = getattr(target.config, section).model_dump(mode="json")
        built = {name: manifest.config.get(section, {}).get(name) for name in asked}
        if built != asked:
            yield f"the index was built with {section} {built}, the configuration has {asked}: change it there"
