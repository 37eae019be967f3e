"""Is the installation complete and the index sound? Every check says what to do when it is not.

Nothing is repaired and nothing is created here; an index that `TwoStagePipeline.open` refuses can be examined.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.index_checks import REBUILD, REPAIR, Check, examine_contents
from pipelines.opening import open_index_encoder
from pipelines.presence import has_points, require_index
from pipelines.progress import StepCallback
from retrieval.config import Config, EdgeStoreConfig
from retrieval.datatypes import IndexManifest
from retrieval.encoders import Bm25Encoder, find_compiled
from retrieval.errors import IndexMismatchError, RetrievalError, StoreBusyError
from retrieval.manifest import manifest_from_json, peek_manifest, require_same_bm25, require_same_encoder
from retrieval.models import find_model
from retrieval.protocols import Encoder, Store
from retrieval.rerankers import open_reranker
from retrieval.stores import StoredIndex, open_store, peek_index

_PACKAGES = ("numpy", "onnxruntime", "pydantic", "qdrant-edge-py", "safetensors", "tokenizers")


def examine(
    config: Config, folder: Path | None, *, deep: bool = False, on_progress: StepCallback | None = None
) -> tuple[Check, ...]:
    """Check the installation, the models, the index and what is stored in it.

    Args:
        config: The configuration that the index would be opened with.
        folder: Folder of the embedded index; ``None`` for an index on a server.
        deep: Compare every file with its seal, and every passage with what is made of its text.
        on_progress: Called while the index is read.

    Returns:
        All checks, in the order in which they build on each other.
    """
    return tuple(_checks(config, folder, deep, on_progress or (lambda stage, done, total: None)))


def _checks(config: Config, folder: Path | None, deep: bool, on_progress: StepCallback) -> Iterator[Check]:
    yield _installation()
    stored = _peek(config, folder)
    encoder, check = _encoder(config, stored)
    yield check
    yield _reranker(config)
    if folder is not None:
        yield _disk(config, folder)
    if deep:
        from pipelines.deep.run import deep_checks

        yield from deep_checks(config, folder, on_progress)
        return
    if folder is not None:
        yield examine_folder(folder)
    if encoder is None or (folder is not None and not has_points(folder)):
        yield Check("index", None, "not opened, see above")
        return
    yield from _index(config, folder, encoder, stored, on_progress)


def examine_stored(config: Config, folder: Path | None, on_progress: StepCallback) -> Iterator[Check]:
    """Open the index and compare everything in it with what is made of the stored texts.

    Args:
        config: The configuration that the index would be opened with.
        folder: Folder of the embedded index; ``None`` for an index on a server.
        on_progress: Called while the index is read.
    """
    stored = _peek(config, folder)
    encoder, check = _encoder(config, stored)
    if encoder is None:
        # Everything else can be compared without it; vectors are of the size that the manifest says.
        yield check
    yield from _index(config, folder, encoder, stored, on_progress, deep=True)


def _peek(config: Config, folder: Path | None) -> StoredIndex | None:
    """What is there, where it can be known; the checks of manifest and index tell what is wrong."""
    try:
        return peek_index(config, folder)
    except RetrievalError:
        return None


def _installation() -> Check:
    found, missing = [f"Python {platform.python_version()}"], []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Check("installation", False, f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Check("installation", True, ", ".join([*found, _compiled()]))


def _compiled() -> str:
    """How bulk work is encoded; the vectors are the same in any case."""
    status = find_compiled()
    if status.state == "ready":
        return "encoding is compiled"
    return f"encoding is not compiled ({status.reason})"


def _encoder(config: Config, stored: StoredIndex | None) -> tuple[Encoder | None, Check]:
    try:
        encoder = open_index_encoder(config, stored)
        Bm25Encoder(config.bm25)
    except (RetrievalError, ValueError) as error:
        return None, Check("encoder", False, str(error), "name a model that is there with --set encoder.model=NAME")
    return encoder, Check("encoder", True, str(encoder.fingerprint))


def _reranker(config: Config) -> Check:
    try:
        reranker = open_reranker(config.rerank, find_model(config.rerank.model))
        logits = reranker.score("what causes the tides", ["The moon causes the tides.", "Bread is baked from flour."])
    except (RetrievalError, OSError) as error:
        return Check("reranker", False, str(error), "name a model that is there with --set rerank.model=NAME")
    if not logits[0] > logits[1]:
        detail = f"{reranker.name} prefers a text that has nothing to do with the question"
        return Check("reranker", False, detail, "install the package again, or choose another model")
    return Check("reranker", True, f"{reranker.name} tells an answer from another text")


def _disk(config: Config, folder: Path) -> Check:
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free // 2**20
    least = config.store.min_free_mb if isinstance(config.store, EdgeStoreConfig) else 0
    if free < least:
        return Check("disk", False, f"{free:,} MiB free", f"free some; writes need {least:,} MiB (store.min_free_mb)")
    return Check("disk", True, f"{free:,} MiB free")


def examine_folder(folder: Path) -> Check:
    """Whether there is an index in a folder."""
    try:
        manifest = peek_manifest(folder)
    except RetrievalError as error:
        return Check("manifest", False, str(error), f"{REPAIR}, or {REBUILD}")
    if manifest is not None and has_points(folder):
        generation = f"generation {manifest.generation}"
        return Check(
            "manifest", True, f"{generation}: {manifest.documents:,} documents, {manifest.passages:,} passages"
        )
    if manifest is None and not has_points(folder):
        return Check("manifest", False, f"there is no index in {folder.absolute()}", "retrieval ingest PATH")
    missing = "engine in generations/" if manifest is not None else "manifest.json"
    return Check("manifest", False, f"{folder.absolute()} has no {missing}", f"{REPAIR}, or {REBUILD}")


def _index(
    config: Config,
    folder: Path | None,
    encoder: Encoder | None,
    peeked: StoredIndex | None,
    on_progress: StepCallback,
    *,
    deep: bool = False,
) -> Iterator[Check]:
    try:
        if folder is None:
            require_index(config, folder)
        # The vectors have the size of the encoder that made them, whatever the configuration asks for.
        made_with = encoder if peeked is None else peeked.manifest.encoder
        if made_with is None:
            yield Check("index", None, "not opened, see above")
            return
        store = open_store(config, dim=made_with.dim, path=folder, verify=False)
    except StoreBusyError as error:
        yield Check("index", False, str(error), "close it there and run doctor again")
        return
    except (RetrievalError, OSError) as error:
        yield Check("index", False, str(error), REPAIR)
        return
    try:
        yield Check("index", True, f"{store.location} opens")
        stored = store.read_manifest()
        if stored is None:
            yield Check("contents", None, "not compared, there is no manifest")
            return
        manifest = manifest_from_json(stored, store.location)
        yield _state(manifest)
        same = _same_settings(config, manifest, encoder, store.location)
        yield same
        if deep:
            yield from _deeply(config, store, manifest, encoder if same.ok else None, on_progress)
        else:
            yield from examine_contents(store, manifest, encoder if same.ok else None, on_progress)
    except (RetrievalError, OSError) as error:
        yield Check("contents", False, str(error), REPAIR)
    finally:
        store.close()


def _deeply(
    config: Config, store: Store, manifest: IndexManifest, encoder: Encoder | None, on_progress: StepCallback
) -> Iterable[Check]:
    from pipelines.deep.contents import examine_deeply

    sparse = Bm25Encoder(config.bm25) if encoder is not None else None
    return examine_deeply(store, manifest, encoder, sparse, on_progress)


def _state(manifest: IndexManifest) -> Check:
    if manifest.state == "ready":
        return Check("state", True, f"ready, last changed {manifest.updated}")
    return Check(
        "state", False, f"a run was interrupted while {manifest.state}", "run the same 'retrieval ingest' command again"
    )


def _same_settings(config: Config, manifest: IndexManifest, encoder: Encoder | None, location: str) -> Check:
    if encoder is None:
        return Check("settings", None, "not compared, the encoder cannot be opened")
    try:
        require_same_encoder(manifest, encoder.fingerprint, location)
        require_same_bm25(manifest, config, location)
    except IndexMismatchError as error:
        return Check("settings", False, str(error), "open it with its own settings, or " + REBUILD)
    chosen = "" if manifest.dense_weight is None else f", dense weight {manifest.dense_weight:.2f} chosen for it"
    return Check("settings", True, f"encoder and BM25 are those that the index was built with{chosen}")
