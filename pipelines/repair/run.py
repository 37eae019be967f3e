"""Find what is damaged, and make it again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines.deep import deep_check
from pipelines.index_checks import Check, Finding
from pipelines.opening import settings_of
from pipelines.progress import StepCallback
from pipelines.repair.copies import restore_from_copies, withdraw_damaged_publication
from pipelines.repair.rebuilding import Rebuilt, rebuild_from_texts
from pipelines.repair.report import Done, RepairReport
from pipelines.repair.small_files import restore_small_files
from retrieval.config import Config
from retrieval.errors import RetrievalError, StoreError
from retrieval.manifest import peek_manifest
from retrieval.models import find_model
from retrieval.stores import open_store
from retrieval.stores.edge import EdgeStore
from retrieval.stores.generation_settings import Settings
from retrieval.stores.index_folder import IndexFolder, Live, find_live
from retrieval.stores.index_layout import GENERATIONS
from retrieval.stores.seal import SEAL

_NO_REBUILD = ("settings", "published")
"""Checks whose findings need no new index."""


def repair_index(
    folder: str | Path,
    config: Config | None = None,
    *,
    sources: Sequence[str | Path] = (),
    discard: bool = False,
    on_progress: StepCallback | None = None,
) -> RepairReport:
    """Find out what of an embedded index is damaged, and make it again from what is left.

    The texts of passages are kept in the index, so its vectors and indexes can always be made again; they come out as
    they were, bit by bit. Texts that are gone are read from the sources of their documents, where these have not
    changed. What is missing then is named, and the damaged files are kept. Nothing is done to a sound index.

    Args:
        folder: Folder of the index, which nobody has open.
        config: Settings; ``None`` for those that the index was built with.
        sources: Files and folders that its documents came from, as they were given to the ingest; only needed where so
            much is lost that the index does not tell.
        discard: Erase the damaged files that an earlier repair has kept.
        on_progress: Called with what is under way.

    Raises:
        StoreError: There is no index, or nothing of it can be read; nothing has changed.
        StoreBusyError: It is open elsewhere.
        StoreFullError: There is no room for a second copy.
        ModelError: The encoder that the configuration names cannot be opened.

    Example:
        >>> from pipelines.repair import repair_index
        >>> repair_index("my-index").done
        'nothing'
    """
    started = time.monotonic()
    folder, tell = Path(folder), on_progress or (lambda stage, done, total: None)
    live = _require_generation(folder)
    with _locked(folder) as index:
        chosen = (config or Config()).quantization
        settings = Settings(chosen.record(), has_deletes=True, automatic=chosen.kind == "auto")
        restored = tuple(restore_small_files(folder, live, settings))
        discarded = index.discard_damaged() if discard else []
    notes = tuple(f"the damaged generation {number} that was kept is erased" for number in discarded)
    config = config or _settings(folder)
    damage = left = _damage(folder, config, tell)
    with _locked(folder):
        copied = tuple(restore_from_copies(folder, live.number, _base(config))) if damage is not None else ()
        restored += (*copied, *withdraw_damaged_publication(folder))
    if copied:
        left = _damage(folder, config, tell)
    if left is not None:
        with _locked(folder) as index:
            rebuilt = rebuild_from_texts(
                index, find_live(folder) or live, config, [Path(source) for source in sources], tell
            )
        notes += rebuilt.notes
    else:
        rebuilt = None
        _seal_again(folder, live, config)
    return _report(folder, restored, damage or (), rebuilt, notes, time.monotonic() - started)


@contextmanager
def _locked(folder: Path) -> Iterator[IndexFolder]:
    index = IndexFolder(folder)
    try:
        yield index
    finally:
        index.release()


def _damage(folder: Path, config: Config, tell: StepCallback) -> tuple[Finding, ...] | None:
    """What a deep check finds; ``None`` for a sound index."""
    checks = [check for check in deep_check(folder, config, on_progress=tell).damage if check.name not in _NO_REBUILD]
    if not checks:
        return None
    return tuple(finding for check in checks for finding in check.findings or (_finding(check),))


def _finding(check: Check) -> Finding:
    return Finding("index", check.name, check.detail)


def _require_generation(folder: Path) -> Live:
    live = find_live(folder)
    if live is not None:
        return live
    engines = [path.parent for path in (folder / GENERATIONS).glob("*/engine") if path.parent.name.isdecimal()]
    complete = [path for path in engines if not (path / "growing.json").exists()]
    if not complete:
        raise StoreError(f"there is no index in {folder.absolute()}; make one with 'retrieval ingest PATH'")
    return Live(max(int(path.name) for path in complete), None)


def _settings(folder: Path) -> Config:
    try:
        return settings_of(folder)
    except RetrievalError:
        return Config()


def _base(config: Config) -> Path | None:
    try:
        return find_model(config.encoder.model)
    except RetrievalError:
        return None


def _seal_again(folder: Path, live: Live, config: Config) -> None:
    """Seal a sound index that has no seal, because a writer was killed or the seal was damaged."""
    manifest = peek_manifest(folder)
    if manifest is None or (folder / GENERATIONS / str(live.number) / SEAL).exists():
        return
    store = open_store(config, dim=manifest.encoder.dim, path=folder)
    try:
        if isinstance(store, EdgeStore):
            store.renew_seal()
    finally:
        store.close()


def _report(
    folder: Path,
    restored: tuple[str, ...],
    damage: tuple[Finding, ...],
    rebuilt: Rebuilt | None,
    notes: tuple[str, ...],
    seconds: float,
) -> RepairReport:
    manifest = peek_manifest(folder)
    if manifest is None:
        raise StoreError(f"{folder.absolute()} has no manifest.json after its repair")
    done: Done = "index" if rebuilt is not None else "files" if restored else "nothing"
    rebuilt = rebuilt or Rebuilt(complete=True if manifest.state == "ready" else None)
    return RepairReport(
        done=done,
        damage=damage,
        restored=restored,
        documents=manifest.documents,
        passages=manifest.passages,
        texts_from=rebuilt.texts_from,
        complete=rebuilt.complete,
        reread=rebuilt.reread,
        lost=rebuilt.lost,
        doubtful=rebuilt.doubtful,
        notes=notes,
        kept_damaged=rebuilt.kept_damaged,
        generation=manifest.generation,
        seconds=seconds,
    )
