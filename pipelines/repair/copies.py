"""Second copies of the files of an index: what is damaged is put back from them, and damaged ones are removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from retrieval.errors import StoreCorruptError, StoreFullError
from retrieval.stores.file_digests import digest_file
from retrieval.stores.index_layout import ENCODER, GENERATIONS
from retrieval.stores.published import named_publication, withdraw_publications
from retrieval.stores.published_files import copy_file
from retrieval.stores.published_seal import damage_of_publication
from retrieval.stores.seal import ENCODER_CONFIG, SEAL, Seal, read_seal
from retrieval.stores.seal_differences import compare_digests

_NEW = "restored.new"
_Write = Callable[[Path], object]


def restore_from_copies(folder: Path, number: int, base: Path | None) -> Iterator[str]:
    """Put back damaged files of a generation and give a sentence for each; the index is locked by the caller.

    Copies are what other processes read (`retrieval.stores.published`) and, for an adapted encoder, the one that it
    came from, whose words it has, and the seal, which has its configuration.

    Args:
        folder: Folder of the index.
        number: Number of its live generation.
        base: Folder of the encoder that the configuration names; ``None`` where it cannot be had.

    Raises:
        StoreFullError: A file cannot be written.
    """
    generation = folder / GENERATIONS / str(number)
    try:
        seal = read_seal(generation)
    except StoreCorruptError:
        return
    if seal is None:
        return
    for name in (different.name for different in compare_digests(generation, seal)):
        found = next(_copies(folder, number, base, seal, name), None) if name in seal.files else None
        if found is not None:
            source, write = found
            _put(write, generation / name, generation / _NEW)
            yield f"{GENERATIONS}/{number}/{name} from {source}"


def withdraw_damaged_publication(folder: Path) -> Iterator[str]:
    """Remove the copy that other processes read where it is damaged, and say so; the index is locked by the caller.

    Args:
        folder: Folder of the index.
    """
    publication = named_publication(folder)
    if publication is None:
        return
    if any(damage_of_publication(publication.folder, publication.digest, contents=True)):
        withdraw_publications(folder)
        yield f"{publication.folder.relative_to(folder)}, by removing it: who reads next has it made again"


def _copies(folder: Path, number: int, base: Path | None, seal: Seal, name: str) -> Iterator[tuple[str, _Write]]:
    """Where a file still is as it was sealed, and what writes it."""
    digest = seal.files[name].digest
    publication = named_publication(folder)
    if publication is not None:
        copy = publication.folder / GENERATIONS / str(number) / name
        if _says(copy, digest):
            yield str(copy.relative_to(folder)), partial(copy_file, copy)
    if name == ENCODER_CONFIG and seal.encoder:
        text = seal.encoder.encode()
        yield f"{GENERATIONS}/{number}/{SEAL}", lambda target: target.write_bytes(text)
    within, _, file = name.partition("/")
    if within == ENCODER and base is not None and _says(base / file, digest):
        yield f"the model {base.name}", partial(copy_file, base / file)


def _says(path: Path, digest: str) -> bool:
    try:
        return digest_file(path).digest == digest
    except OSError:
        return False


def _put(write: _Write, target: Path, new: Path) -> None:
    """Write a file beside the sealed folders first, where it is no part of the index if this ends in the middle."""
    try:
        new.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(new)
        os.replace(new, target)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StoreFullError(f"cannot write {target}: {error.strerror or error}") from error
