"""A store that can be searched and not changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from retrieval.datatypes import Arm, Filter, Point, Quantization, ScoredPoint, SearchRequest, StoredPoint
from retrieval.errors import StoreError
from retrieval.protocols import Store


class ReadOnlyStore:
    """Passes reading on to another store and refuses the rest.

    Args:
        store: What is read.
        location: The index, for messages; where ``store`` is a copy, it names the copy.
        on_close: Called after ``store`` was closed.
    """

    def __init__(self, store: Store, location: str, on_close: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._location = location
        self._on_close = on_close

    @property
    def inner(self) -> Store:
        """What is read."""
        return self._store

    @property
    def location(self) -> str:
        """The index."""
        return self._location

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self._store.generation

    @property
    def origin(self) -> str:
        """What the generation was started from; see `Store.origin`."""
        return self._store.origin

    @property
    def quantization(self) -> Quantization:
        """How dense vectors are compressed."""
        return self._store.quantization

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Best points of each request; see `Store.search`."""
        return self._store.search(requests)

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool | Sequence[Arm] = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        return self._store.get(ids, payload=payload, vectors=vectors)

    def scan(
        self,
        where: Filter | None = None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool | Sequence[Arm] = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All matching points; see `Store.scan`."""
        return self._store.scan(where, payload=payload, vectors=vectors, batch=batch)

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        return self._store.count(where)

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`."""
        return self._store.facet(key, limit, where)

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The manifest; see `Store.read_manifest`."""
        return self._store.read_manifest()

    def encoder_folder(self) -> Path:
        """Folder of an adapted encoder; see `Store.encoder_folder`."""
        return self._store.encoder_folder()

    def upsert(self, points: Sequence[Point]) -> None:
        """Refused."""
        self._refuse()

    def delete(self, ids: Sequence[str]) -> None:
        """Refused."""
        self._refuse()

    def delete_where(self, where: Filter) -> int:
        """Refused."""
        self._refuse()

    def set_quantization(self, quantization: Quantization) -> None:
        """Refused."""
        self._refuse()

    def bulk(self, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Refused."""
        self._refuse()

    def optimize(self) -> None:
        """Refused."""
        self._refuse()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Refused."""
        self._refuse()

    def start_generation(self, dim: int, *, origin: str = "") -> Store:
        """Refused."""
        self._refuse()

    def open_generation(self, number: int) -> Store:
        """Refused: there is only one."""
        self._refuse()

    def make_live(self, manifest: Mapping[str, Any]) -> None:
        """Refused."""
        self._refuse()

    def tidy(self) -> None:
        """Refused."""
        self._refuse()

    def abandon(self) -> None:
        """Refused."""
        self._refuse()

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close what is read; closing twice is fine."""
        try:
            self._store.close()
        finally:
            self._on_close()

    def _refuse(self) -> NoReturn:
        raise StoreError(f"index {self._location} was opened read-only; open it without read_only to change it")
