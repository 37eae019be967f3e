"""A damaged generation made again from its texts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pipelines.counts import Counts
from pipelines.deep.contents import examine_deeply
from pipelines.preparation import Preparing
from pipelines.progress import StepCallback
from pipelines.repair.encoders import Encoders, find_encoders
from pipelines.repair.remaking import fill, named_passages
from pipelines.repair.report import LostDocument
from pipelines.repair.sources import Reread, Wanted, reread
from pipelines.repair.taking import Taken
from pipelines.repair.texts import Texts
from retrieval.chunking import Chunker
from retrieval.config import Config, QuantizationConfig
from retrieval.datatypes import IndexManifest
from retrieval.encoders import Bm25Encoder
from retrieval.errors import RetrievalError, StoreCorruptError, StoreError, StoreFullError
from retrieval.manifest import manifest_to_json, new_manifest, peek_manifest
from retrieval.models import open_encoder
from retrieval.protocols import Encoder, Store
from retrieval.stores.edge import grow
from retrieval.stores.generation_settings import settings_of
from retrieval.stores.index_folder import IndexFolder, Live

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
    encoders = find_encoders(manifest, generation, config)
    preparing = Preparing(encoders.new, Bm25Encoder(config.bm25), Chunker.of_encoder(config.chunking, encoders.new))
    scratch = index.root / _SCRATCH
    try:
        texts = Texts(generation, manifest, encoders, preparing, scratch, tell)
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


def _reread(
    texts: Texts, preparing: Preparing, config: Config, sources: Sequence[Path], tell: StepCallback
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
    encoders: Encoders,
    texts: Texts,
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


def _average_length(texts: Texts, manifest: IndexManifest | None) -> float:
    if manifest is not None and manifest.average_length:
        return manifest.average_length
    counts = texts.taken.counts
    return counts.terms / counts.passages if counts.passages else 0.0


def _new_manifest(
    config: Config,
    manifest: IndexManifest | None,
    encoders: Encoders,
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


def _require_room(generation: Path) -> None:
    files = (path for path in generation.rglob("*") if path.is_file())
    size = sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in files)
    free = shutil.disk_usage(generation).free
    if free < size:
        raise StoreFullError(f"{generation.parent} needs {size // 2**20} MiB of free disk and has {free // 2**20} MiB")
