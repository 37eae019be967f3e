"""A damaged generation made again from its texts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pipelines.counts import Counts
from pipelines.deep.contents import examine_deeply
from pipelines.opening import names_base_of
from pipelines.preparation import Preparing
from pipelines.progress import StepCallback
from pipelines.repair.reading import Reader, engine_reader, files_reader
from pipelines.repair.remaking import Named, fill, named_passages
from pipelines.repair.report import LostDocument
from pipelines.repair.sources import Reread, Wanted, reread
from pipelines.repair.taking import Comparison, Taken, expected_ids, take
from retrieval.chunking import Chunker
from retrieval.config import Config, QuantizationConfig
from retrieval.datatypes import IndexManifest
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.errors import ModelError, RetrievalError, StoreCorruptError, StoreError, StoreFullError
from retrieval.manifest import manifest_to_json, new_manifest, peek_manifest, same_encoder
from retrieval.models import open_encoder
from retrieval.protocols import Encoder, Store
from retrieval.stores.edge import grow
from retrieval.stores.index_folder import ENCODER, IndexFolder, Live, settings_of
from retrieval.stores.salvage import salvage_ids
from retrieval.stores.seal import Seal, read_seal

_SCRATCH = "repair.tmp"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of a generation; the fields of `pipelines.repair.report.RepairReport`."""

    texts_from: str = ""
    complete: bool | None = None
    reread: int = 0
    lost: tuple[LostDocument, ...] = ()
    doubtful: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kept_damaged: str = ""


@dataclass(frozen=True, slots=True)
class _Encoders:
    """Which encoder makes the new vectors, and which has made the old ones.

    Args:
        new: Makes the new vectors.
        old: Has made those that are stored; ``None`` where it is gone.
        folder: Folder of an adapted encoder that is kept.
        notes: Sentences for a person.
    """

    new: StaticEncoder
    old: Encoder | None
    folder: Path | None
    notes: tuple[str, ...] = ()


def rebuild_from_texts(
    index: IndexFolder, live: Live, config: Config, sources: Sequence[Path], tell: StepCallback
) -> Rebuilt:
    """Make the live generation again from its texts, and let the result take its place.

    Args:
        index: Folder of the index, locked by the caller.
        live: Its live generation.
        config: Settings of the index.
        sources: Files and folders that documents came from, besides those that the texts name.
        tell: Called with what is under way.

    Raises:
        StoreError: No text can be read; nothing has changed.
        StoreFullError: There is no room for a second copy.
    """
    manifest = _manifest(index.root)
    generation = index.generation(live.number)
    _require_room(generation)
    encoders = _encoders(manifest, generation, config)
    preparing = Preparing(encoders.new, Bm25Encoder(config.bm25), Chunker.of_encoder(config.chunking, encoders.new))
    scratch = index.root / _SCRATCH
    try:
        texts = _Texts(generation, manifest, encoders, preparing, scratch, tell)
        texts.read()
        again = _reread(texts, preparing, config, sources, tell)
        if not texts.taken.ids and not again:
            raise StoreError(
                f"no text can be read from {generation}, and nothing was changed; name the folder or file that the "
                "documents came from with --source PATH, or make the index again with 'retrieval ingest --rebuild PATH'"
            )
        return _replace(index, live, manifest, config, encoders, texts, again, tell)
    finally:
        scratch.unlink(missing_ok=True)


class _Texts:
    """The passages of a damaged generation that can be used."""

    def __init__(
        self,
        generation: Path,
        manifest: IndexManifest | None,
        encoders: _Encoders,
        preparing: Preparing,
        scratch: Path,
        tell: StepCallback,
    ) -> None:
        self._generation, self._manifest = generation, manifest
        self._seal = _seal(generation)
        self._dim = manifest.encoder.dim if manifest is not None else encoders.new.dim
        self._scratch, self._tell = scratch, tell
        self._readers: list[Reader] = []
        self.source = ""
        self.taken = Taken(None)
        self.comparison = Comparison(
            encoders.old, lambda document: preparing.digests([document])[0], self._seal is not None, tell
        )

    def read(self) -> None:
        """Find out what can be used."""
        reader = self._reader()
        expected = expected_ids(salvage_ids(self._generation / "engine"), self._manifest)
        self._take(reader, Taken(expected))
        if self.is_short:
            self._look_everywhere(expected)

    @property
    def is_short(self) -> bool:
        """Whether the manifest proves that something is missing."""
        return self._manifest is not None and self._manifest.state == "ready" and not self._is_complete()

    def named(self) -> Iterator[Named]:
        """What can be used, no id twice."""
        seen: set[str] = set()
        for reader in self._readers:
            for kept in reader():
                if kept.id in self.taken.ids and kept.id not in seen:
                    seen.add(kept.id)
                    yield kept.id, kept.payload

    def _reader(self) -> Reader:
        # Without a seal the log of the engine may hold what its files do not have yet.
        if self._seal is None:
            reader = engine_reader(self._generation, self._scratch, self._tell)
            if reader is not None:
                self.source = "engine"
                return reader
        self.source = "files"
        return files_reader(self._generation, self._dim, self._seal)

    def _take(self, reader: Reader, taken: Taken) -> None:
        take(reader, taken, self.comparison, taken.expected)
        self.taken, self._readers = taken, [reader]

    def _is_complete(self) -> bool:
        return self._manifest is not None and self.taken.is_complete(self._manifest)

    def _look_everywhere(self, expected: frozenset[str] | None) -> None:
        reader = files_reader(self._generation, self._dim, self._seal, everywhere=True)
        if expected is not None:
            take(reader, self.taken, self.comparison, self.taken.missing)
            self._readers.append(reader)
            return
        pointed, readers = self.taken, self._readers
        self._take(reader, Taken(None))
        if not self._is_complete() and pointed.ids:
            # What was removed is among it, and nothing tells what.
            self.taken, self._readers = pointed, readers


def _encoders(manifest: IndexManifest | None, generation: Path, config: Config) -> _Encoders:
    folder = generation / ENCODER
    notes: tuple[str, ...] = ()
    if folder.is_dir() and (manifest is None or manifest.adapted_from is not None):
        try:
            adapted = StaticEncoder.open(folder)
        except ModelError as error:
            notes = (f"the adapted encoder is damaged ({error})",)
        else:
            if manifest is None or same_encoder(adapted.fingerprint, manifest.encoder):
                return _Encoders(adapted, adapted, folder)
            notes = ("the adapted encoder is not the one that has made the vectors",)
    elif manifest is not None and manifest.adapted_from is not None:
        notes = ("the adapted encoder is gone",)
    base = open_encoder(config.encoder)
    if manifest is None:
        notes = ("no manifest was left: settings are those of the configuration, BM25 weighs with the mean length now",)
        return _Encoders(base, base, None, notes)
    if notes:
        notes = (f"{notes[0]}; vectors are those of {base.fingerprint.name} now, run 'retrieval adapt' again",)
        return _Encoders(base, None, None, notes)
    if not same_encoder(base.fingerprint, manifest.encoder):
        if names_base_of(config, manifest):
            notes = (f"{config.encoder.model} was {manifest.encoder} and is {base.fingerprint} now",)
        return _Encoders(base, None, None, notes)
    return _Encoders(base, base, None)


def _reread(
    texts: _Texts, preparing: Preparing, config: Config, sources: Sequence[Path], tell: StepCallback
) -> dict[str, Reread]:
    """Documents of which something is lost or doubtful, as their sources still have them."""
    taken = texts.taken
    doubtful = {*taken.doubtful.values(), *taken.disagreeing.values(), *taken.incomplete()}
    missing = taken.missing
    # Where no id says what is missing, everything in a source that somebody names is.
    everything = bool(sources) and texts.is_short and taken.expected is None
    if not doubtful and not missing and not everything:
        return {}
    tell("reading sources again", 0, 0)
    wanted = Wanted(
        {key: taken.documents[key][0] for key in doubtful}, missing, taken.documents if everything else None
    )
    roots = {*taken.roots, *(source.resolve() for source in sources)}
    found = {}
    for one in reread(roots, wanted, preparing, config.documents):
        if taken.expected is not None:
            one = replace(one, passages={name: part for name, part in one.passages.items() if name in taken.expected})
        found[one.document.key] = one
    return found


def _replace(
    index: IndexFolder,
    live: Live,
    manifest: IndexManifest | None,
    config: Config,
    encoders: _Encoders,
    texts: _Texts,
    again: Mapping[str, Reread],
    tell: StepCallback,
) -> Rebuilt:
    taken, incomplete = texts.taken, texts.taken.incomplete()
    lost = _lost(taken, incomplete, again)
    doubtful = sorted({*taken.doubtful.values(), *taken.disagreeing.values()} - again.keys())
    wanted, graph = _wanted(index.root, live, config)
    store = grow(wanted, index, encoders.new.dim)
    try:
        kept = named_passages(texts.named(), incomplete.keys(), again, 1 if manifest is None else manifest.runs)
        sparse = Bm25Encoder(config.bm25)
        average = _average_length(texts, manifest)
        counts = fill(store, kept, encoders.new, sparse, average, len(taken.ids), tell)
        if graph or store.quantization.kind != "none":
            store.optimize()
        made = _new_manifest(config, manifest, encoders, store, counts, average)
        _require_sound(store, made, encoders.new, sparse, tell)
        if encoders.folder is not None:
            shutil.copytree(encoders.folder, store.encoder_folder())
        if lost or doubtful:
            note = {"lost": [one.document for one in lost], "doubtful": doubtful, "replaced_by": store.generation}
            index.keep_damaged(live.number, note)
        store.make_live(manifest_to_json(made))
    except BaseException:
        store.abandon()
        raise
    store.tidy()
    store.close()
    complete = None
    if manifest is not None and manifest.state == "ready":
        complete = (counts.passages, counts.ids_digest) == (manifest.passages, manifest.ids_digest)
    return Rebuilt(
        texts_from=texts.source,
        complete=complete,
        reread=len(again),
        lost=lost,
        doubtful=tuple(doubtful),
        notes=encoders.notes,
        kept_damaged=str(index.generation(live.number)) if lost or doubtful else "",
    )


def _lost(taken: Taken, incomplete: Mapping[str, set[str]], again: Mapping[str, Reread]) -> tuple[LostDocument, ...]:
    left = taken.missing.difference(*(one.passages for one in again.values()))
    lost = []
    for key, names in sorted(incomplete.items()):
        gone = names & left
        if gone and key not in again:
            lost.append(LostDocument(key, len(gone), taken.kept_of(key)))
        left -= names
    if left:
        lost.append(LostDocument("", len(left), 0))
    return tuple(lost)


def _wanted(root: Path, live: Live, config: Config) -> tuple[Config, bool]:
    """The configuration of the new generation, and whether the old one had a graph."""
    try:
        settings = settings_of(root, live.number)
    except StoreCorruptError:
        settings = None
    if settings is None or (settings.automatic and config.quantization.kind == "auto"):
        return config, settings is not None and settings.graph
    chosen = QuantizationConfig.model_validate(asdict(settings.quantization))
    return config.model_copy(update={"quantization": chosen}), settings.graph


def _average_length(texts: _Texts, manifest: IndexManifest | None) -> float:
    if manifest is not None and manifest.average_length:
        return manifest.average_length
    counts = texts.taken.counts
    return counts.terms / counts.passages if counts.passages else 0.0


def _new_manifest(
    config: Config,
    manifest: IndexManifest | None,
    encoders: _Encoders,
    store: Store,
    counts: Counts,
    average_length: float,
) -> IndexManifest:
    fingerprint = encoders.new.fingerprint
    fields = {**counts.as_manifest_fields(), "average_length": average_length}
    if manifest is None:
        chunking = Chunker.of_encoder(config.chunking, encoders.new).fingerprint
        made = new_manifest(config, fingerprint, chunking, generation=store.generation)
        base = open_encoder(config.encoder).fingerprint if encoders.folder is not None else None
        return replace(made, runs=1, adapted_from=base, **fields)
    state: Literal["ready", "ingesting"] = "ready" if manifest.state == "ready" else "ingesting"
    made = replace(manifest, generation=store.generation, encoder=fingerprint, state=state, **fields)
    if encoders.folder is None and manifest.adapted_from is not None:
        made = replace(made, adapted_from=None, dense_weight=None)
    return made


def _require_sound(
    store: Store, manifest: IndexManifest, encoder: Encoder, sparse: Bm25Encoder, tell: StepCallback
) -> None:
    for check in examine_deeply(store, manifest, encoder, sparse, tell):
        if check.ok is False:
            raise StoreCorruptError(f"the index that was made again is not sound ({check.detail}); nothing was changed")


def _manifest(root: Path) -> IndexManifest | None:
    try:
        return peek_manifest(root)
    except RetrievalError:
        return None


def _seal(generation: Path) -> Seal | None:
    try:
        return read_seal(generation)
    except StoreCorruptError:
        return None


def _require_room(generation: Path) -> None:
    files = (path for path in generation.rglob("*") if path.is_file())
    size = sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in files)
    free = shutil.disk_usage(generation).free
    if free < size:
        raise StoreFullError(f"{generation.parent} needs {size // 2**20} MiB of free disk and has {free // 2**20} MiB")
