"""The small files of an index, from what there is a second time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from retrieval.errors import StoreCorruptError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.generation_settings import Settings, settings_of
from retrieval.stores.index_folder import Live
from retrieval.stores.index_layout import GENERATIONS, MANIFEST_COPY, SETTINGS
from retrieval.stores.json_files import read_json, write_json
from retrieval.stores.seal import SEAL, read_seal


def restore_small_files(folder: Path, live: Live, settings: Settings) -> Iterator[str]:
    """Restore what is damaged or missing and give a sentence for each; the index is locked by the caller.

    Args:
        folder: Folder of the index.
        live: Its live generation.
        settings: Settings of the store, where nothing tells them any more.
    """
    generation = folder / GENERATIONS / str(live.number)
    copy = generation / MANIFEST_COPY
    if live.copied:
        write_json(folder / MANIFEST_FILE, read_json(copy) or {})
        yield f"{MANIFEST_FILE} from {copy.relative_to(folder)}"
    elif _is_damaged(copy):
        write_json(copy, read_json(folder / MANIFEST_FILE) or {})
        yield f"{copy.relative_to(folder)} from {MANIFEST_FILE}"
    if _is_damaged(generation / SEAL):
        (generation / SEAL).unlink()
        yield f"{(generation / SEAL).relative_to(folder)} is made again from the files, when they have been compared"
    try:
        settings_of(folder, live.number)
    except StoreCorruptError:
        seal = read_seal(generation)
        path = generation / SETTINGS
        if seal is not None and seal.settings:
            write_json(path, seal.settings)
            yield f"{path.relative_to(folder)} from {(generation / SEAL).relative_to(folder)}"
        else:
            write_json(path, asdict(settings))
            yield f"{path.relative_to(folder)} with the settings of the configuration"


def _is_damaged(path: Path) -> bool:
    try:
        read_json(path)
    except StoreCorruptError:
        return True
    return False
