"""Files of an index from the copy that other processes read, where that has them as they were sealed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import StoreCorruptError, StoreFullError
from retrieval.stores.file_digests import digest_file
from retrieval.stores.index_layout import GENERATIONS
from retrieval.stores.published import named_publication
from retrieval.stores.published_files import copy_file
from retrieval.stores.seal import compare_digests, read_seal

_NEW = ".restored"


def restore_from_publication(folder: Path, number: int) -> Iterator[str]:
    """Put back damaged files of a generation and give a sentence for each; the index is locked by the caller.

    Args:
        folder: Folder of the index.
        number: Number of its live generation.

    Raises:
        StoreFullError: A file cannot be written.
    """
    generation, publication = folder / GENERATIONS / str(number), named_publication(folder)
    try:
        seal = read_seal(generation)
    except StoreCorruptError:
        seal = None
    if seal is None or publication is None:
        return
    for different in compare_digests(generation, seal):
        copy = publication.folder / GENERATIONS / str(number) / different.name
        if different.name in seal.files and _says(copy, seal.files[different.name].digest):
            try:
                _put(copy, generation / different.name)
            except OSError as error:
                raise StoreFullError(
                    f"cannot write {generation / different.name}: {error.strerror or error}"
                ) from error
            place = (generation / different.name).relative_to(folder)
            yield f"{place} from {copy.relative_to(folder)}"


def _says(path: Path, digest: str) -> bool:
    try:
        return not path.is_symlink() and digest_file(path).digest == digest
    except OSError:
        return False


def _put(source: Path, target: Path) -> None:
    new = target.with_name(target.name + _NEW)
    new.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy_file(source, new)
        os.replace(new, target)
    except OSError:
        new.unlink(missing_ok=True)
        raise
