"""The indexes that one server offers, by name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.lease import IndexLease, Resolve
from pipelines.mcp_server.replies import CollectionReply
from pipelines.mcp_server.roots import Roots
from retrieval.config import ServerStoreConfig
from retrieval.datatypes import IndexManifest, Quantization
from retrieval.errors import RetrievalError


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """One index.

    Args:
        name: Name of the collection.
        resolve: Gives its configuration and its folder.
        lease: Opens it.
    """

    name: str
    resolve: Resolve
    lease: IndexLease

    def describe(self) -> CollectionReply:
        """What can be known of it without opening it, so that this answers also while another process writes."""
        from pipelines.presence import require_index
        from retrieval.stores import peek_quantization

        location = self.name
        try:
            config, folder = self.resolve()
            if folder is not None:
                location = str(folder.absolute())
            elif isinstance(config.store, ServerStoreConfig):
                location = f"{config.store.url} {config.store.collection}"
            manifest = require_index(config, folder)
            if manifest is not None and folder is not None:
                quantization, _ = peek_quantization(folder, manifest.generation)
                return self._reply(location, manifest, quantization)
            with self.lease.use() as pipeline:
                return self._reply(location, pipeline.manifest, pipeline.store.quantization)
        except (RetrievalError, OSError) as error:
            return CollectionReply(name=self.name, location=location, problem=str(error))

    def _reply(self, location: str, manifest: IndexManifest, quantization: Quantization) -> CollectionReply:
        return CollectionReply(
            name=self.name,
            location=location,
            documents=manifest.documents,
            passages=manifest.passages,
            encoder=f"{manifest.encoder.name} ({manifest.encoder.dim} dims)",
            quantization=str(quantization),
            updated=manifest.updated,
        )


class Served:
    """All indexes of a server, and what may be ingested into them.

    Args:
        indexes: At least one, with different names.
        roots: Folders that may be ingested.
        stop: Ends the waits of the leases; set by `stop`.
    """

    def __init__(self, indexes: Sequence[ServedIndex], roots: Roots, stop: threading.Event) -> None:
        self.indexes = tuple(indexes)
        self.roots = roots
        self._stop = stop

    def stop(self) -> None:
        """Wait for no index any more."""
        self._stop.set()

    def named(self, name: str | None) -> ServedIndex:
        """The index of that name; ``None`` means the only one.

        Raises:
            ValueError: There is none, or there are several to choose from.
        """
        names = ", ".join(repr(index.name) for index in self.indexes)
        if name is None:
            if len(self.indexes) > 1:
                raise ValueError(f"there are several collections, so say which: collection is one of {names}")
            return self.indexes[0]
        for index in self.indexes:
            if index.name == name:
                return index
        raise ValueError(f"there is no collection {name!r}; there are {names}")

    def close(self) -> None:
        """Close every index."""
        for index in self.indexes:
            index.lease.close()
