"""Files of an index from wherever there is a second copy of them, as they were sealed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from retrieval.errors import StoreCorruptError, StoreFullError
from retrieval.stores.file_digests import digest_file
from retrieval.stores.index_layout import ENCODER, GENERATIONS
from retrieval.stores.published import named_publication
from retrieval.stores.published_files import copy_file
from retrieval.stores.seal import ENCODER_CONFIG, SEAL, Seal, SealedFile, read_seal
from retrieval.stores.seal_differences import compare_digests

_NEW = ".restored"
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
        seal = None
    for different in [] if seal is None else compare_digests(generation, seal):
        if seal is None or different.name not in seal.files:
            continue
        place = (generation / different.name).relative_to(folder)
        for source, write in _copies(folder, number, base, seal, different.name):
            if _put(write, generation / different.name, seal.files[different.name]):
                yield f"{place} from {source}"
                break


def _copies(folder: Path, number: int, base: Path | None, seal: Seal, name: str) -> Iterator[tuple[str, _Write]]:
    """Where there may be a copy of a file, and what writes it."""
    publication = named_publication(folder)
    if publication is not None:
        copy = publication.folder / GENERATIONS / str(number) / name
        if copy.is_file():
            yield str(copy.relative_to(folder)), partial(copy_file, copy)
    if name == ENCODER_CONFIG and seal.encoder:
        text = seal.encoder
        yield f"{GENERATIONS}/{number}/{SEAL}", lambda target: target.write_bytes(text.encode())
    within, _, file = name.partition("/")
    if within == ENCODER and base is not None and (base / file).is_file():
        yield f"the model {base.name}", partial(copy_file, base / file)


def _put(write: _Write, target: Path, sealed: SealedFile) -> bool:
    """Write a file anew where the copy says what was sealed."""
    new = target.with_name(target.name + _NEW)
    try:
        new.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(new)
        same = digest_file(new).digest == sealed.digest
        if same:
            os.replace(new, target)
    except OSError as error:
        raise StoreFullError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)
    return same
