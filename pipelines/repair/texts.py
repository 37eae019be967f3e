"""The passages of a damaged generation that can be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.preparation import Preparing
from pipelines.progress import StepCallback
from pipelines.repair.encoders import Encoders
from pipelines.repair.reading import Reader, engine_reader, files_reader
from pipelines.repair.remaking import Named
from pipelines.repair.taking import Comparison, Taken, expected_ids, take
from retrieval.datatypes import IndexManifest
from retrieval.errors import StoreCorruptError
from retrieval.stores.salvage import salvage_ids
from retrieval.stores.seal import Seal, read_seal


class Texts:
    """Reads them, from wherever they can be read, until nothing is missing or there is nowhere else to look.

    Args:
        generation: Folder of the damaged generation.
        manifest: Manifest of the index; ``None`` where there is none any more.
        encoders: Compare texts with the vectors that are stored for them.
        preparing: Makes content hashes as the ingest did.
        scratch: File for what the engine gives.
        tell: Called with what is under way.
    """

    def __init__(
        self,
        generation: Path,
        manifest: IndexManifest | None,
        encoders: Encoders,
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


def _seal(generation: Path) -> Seal | None:
    try:
        return read_seal(generation)
    except StoreCorruptError:
        return None
