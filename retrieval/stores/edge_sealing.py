"""The seal of a generation that a store has open: compared at first, lifted before a write, made again at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qdrant_edge

from retrieval.errors import StoreCorruptError
from retrieval.stores.json_files import REMEDY
from retrieval.stores.seal import (
    ENGINE_CONFIG,
    Seal,
    SealedFile,
    lasting_config,
    make_seal,
    read_seal,
    remove_seal,
    write_seal,
)
from retrieval.stores.seal_differences import compare_digests, require_same_sizes, touched_files


class Sealing:
    """What one open store does to the seal of its generation.

    Args:
        generation: Folder of the generation.

    Raises:
        StoreCorruptError: The seal cannot be read.
    """

    def __init__(self, generation: Path) -> None:
        self._generation = generation
        self._seal: Seal | None = read_seal(generation)
        self._known: Mapping[str, SealedFile] = {}
        self._lifted = False

    @property
    def is_lifted(self) -> bool:
        """Whether something was written, so that a seal is due."""
        return self._lifted

    def require_whole(self, config: Mapping[str, Any] | None) -> None:
        """Refuse files that are missing, of another size, or settings of the engine that nobody has sealed.

        Args:
            config: The configuration of the engine; ``None`` where there is none.

        Raises:
            StoreCorruptError: A file is not as it was when the index was last closed; it is named.
        """
        seal = self._seal
        if seal is None:
            return
        require_same_sizes(self._generation, seal)
        if config is not None and lasting_config(config) != seal.config:
            path = self._generation / ENGINE_CONFIG
            raise StoreCorruptError(f"{path} is damaged (its settings are not what was sealed); {REMEDY}")
        if seal.engine != engine_build():
            # Another build of the engine may write its files anew as it opens them.
            self._known = {}
            self._remove()

    def lift(self) -> None:
        """Take the seal away before something is written; what follows costs nothing the second time.

        Raises:
            StoreCorruptError: A file was changed since it was sealed; nothing has been written to it.
        """
        if self._lifted:
            return
        seal = self._seal
        if seal is not None:
            # Times change as an index is opened. What has changed besides must not be sealed with the new.
            touched = touched_files(self._generation, seal)
            wrong = compare_digests(self._generation, seal, names=touched)
            if wrong:
                path = self._generation / wrong[0].name
                raise StoreCorruptError(
                    f"{path} is damaged ({wrong[0].problem}), so nothing was written to the index; {REMEDY}"
                )
            self._known = {name: sealed for name, sealed in seal.files.items() if name not in touched}
        self._remove()

    def make(self, settings: Mapping[str, Any]) -> None:
        """Seal the files of a generation that is closed.

        Args:
            settings: Settings of its store.

        Raises:
            StoreError: A file cannot be read, or the seal not be written.
        """
        self._lifted = False
        seal = make_seal(self._generation, self._known, settings, engine_build())
        write_seal(self._generation, seal)

    def give_up(self) -> None:
        """Leave the generation without a seal."""
        self._lifted = False

    def _remove(self) -> None:
        self._lifted = True
        if self._seal is not None:
            self._seal = None
            remove_seal(self._generation)


def engine_build() -> int:
    """What tells one build of the engine from another: the size of its library."""
    library = getattr(getattr(qdrant_edge, "qdrant_edge", None), "__file__", None)
    return os.stat(library).st_size if library else 0
