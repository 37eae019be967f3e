"""What a publication was when it was made, so that damage to it is noticed.

As for the index itself, sizes are compared whenever it is taken, contents by a deep check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import StoreCorruptError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.file_digests import digest_file
from retrieval.stores.index_layout import GENERATIONS, SETTINGS
from retrieval.stores.json_files import read_json
from retrieval.stores.seal import (
    ENGINE_CONFIG,
    SEAL,
    Seal,
    SealedFile,
    lasting_config,
    read_seal,
    sealable_files,
    write_seal,
)
from retrieval.stores.seal_differences import Difference, compare_digests, compare_sizes


def seal_publication(folder: Path, generation: int) -> None:
    """Note sizes and digests of a publication that was just made.

    Args:
        folder: Folder of the publication.
        generation: Number of the generation in it.

    Raises:
        OSError: A file cannot be read.
        StoreError: The seal cannot be written.
    """
    place = folder / GENERATIONS / str(generation)
    files = {}
    for name in sealable_files(place):
        status = (place / name).stat()
        # What is a link is sealed where it comes from.
        digest = "" if status.st_nlink > 1 else digest_file(place / name).digest
        files[name] = SealedFile(status.st_size, 0, digest)
    config = lasting_config(read_json(place / ENGINE_CONFIG) or {})
    write_seal(folder, Seal(files, config, read_json(place / SETTINGS) or {}))


def damage_of_publication(folder: Path, manifest: str, *, contents: bool) -> Iterator[Difference]:
    """Files of a publication that are not as they were.

    Args:
        folder: Folder of the publication.
        manifest: Digest of its manifest.
        contents: Whether to read the files; otherwise only sizes are compared.

    Yields:
        Differences, with paths in the folder.
    """
    try:
        if hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest() != manifest:
            yield Difference(MANIFEST_FILE, "its content is not what was published")
    except OSError:
        yield Difference(MANIFEST_FILE, "it cannot be read")
    try:
        seal = read_seal(folder)
    except StoreCorruptError:
        seal = None
    if seal is None:
        yield Difference(SEAL, "it cannot be read")
        return
    for place in sorted((folder / GENERATIONS).glob("*")):
        name = place.relative_to(folder).as_posix()
        for found in compare_digests(place, seal) if contents else compare_sizes(place, seal):
            yield Difference(f"{name}/{found.name}", found.problem)
        if not _has_settings(place / SETTINGS, seal):
            yield Difference(f"{name}/{SETTINGS}", "its content is not what was published")
        return
    yield Difference(GENERATIONS, "it is missing")


def _has_settings(path: Path, seal: Seal) -> bool:
    try:
        return (read_json(path) or {}) == seal.settings
    except StoreCorruptError:
        return False
