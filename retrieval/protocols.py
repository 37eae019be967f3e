"""The seam between the parts: what an encoder, a sparse encoder, a store and a reranker promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from retrieval.datatypes import (
    Arm,
    EncoderFingerprint,
    Filter,
    FloatArray,
    Point,
    Quantization,
    ScoredPoint,
    SearchRequest,
    SparseVector,
    StoredPoint,
)


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into dense vectors.

    Rows are float32, of unit length or all zero; row ``i`` is text ``i``; ``[]`` gives ``(0, dim)``; a bare
    ``str`` is a `TypeError`. Batching never changes a vector. Safe to call from several threads.
    """

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> EncoderFingerprint: ...

    def encode_queries(self, texts: Sequence[str]) -> FloatArray: ...

    def encode_documents(self, texts: Sequence[str]) -> FloatArray: ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, known and unknown, without special tokens."""
        ...


@runtime_checkable
class SparseEncoder(Protocol):
    """Turns texts into BM25 vectors; the inverse document frequency is the store's part."""

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]: ...

    def encode_documents(self, texts: Sequence[str], average_length: float) -> tuple[list[SparseVector], list[int]]:
        """BM25 weights and the length in terms of each text.

        Args:
            texts: Texts as indexed.
            average_length: Terms per passage in the corpus; 0 weighs with the mean length of ``texts``.
        """
        ...


@runtime_checkable
class Store(Protocol):
    """Keeps points with a dense and a sparse vector and a payload.

    Batched in and out. Scores: higher is better; results sorted by score descending, then id. ``search`` never
    changes data. Filters are plain Qdrant REST JSON. Every method may raise `StoreError`; a raised ``upsert`` or
    ``delete`` may have been applied in part and is safe to repeat.

    A store serves one generation of an index: all of its vectors come from one encoder. The next generation grows
    beside it (`start_generation`), and takes its place in one atomic step (`make_live`); the store that served before
    goes on answering until it is closed.
    """

    @property
    def location(self) -> str:
        """Folder or URL and collection, for messages."""
        ...

    @property
    def generation(self) -> int:
        """Number of the generation that this store serves, from 1."""
        ...

    @property
    def origin(self) -> str:
        """What this generation was started from (see `start_generation`), empty where that was not said."""
        ...

    @property
    def quantization(self) -> Quantization: ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those of the same id as a whole.

        One that is not usable refuses the whole batch before anything is written.
        """
        ...

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Best points of each request, at most ``limit``; sparse matches only where a term is shared."""
        ...

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool | Sequence[Arm] = False
    ) -> list[StoredPoint]:
        """The points that exist, in the order of ``ids``.

        ``payload`` may name the top-level keys wanted, ``vectors`` the arms.
        """
        ...

    def scan(
        self,
        where: Filter | None = None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool | Sequence[Arm] = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All points that match, in a stable order, read ``batch`` at a time."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; ids that do not exist are fine."""
        ...

    def delete_where(self, where: Filter) -> int:
        """Remove the points that match and return how many; an empty filter is refused."""
        ...

    def count(self, where: Filter | None = None) -> int: ...

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values of an indexed payload field with their counts, most frequent first."""
        ...

    def set_quantization(self, quantization: Quantization) -> None:
        """Switch vector quantization on, to another kind, or off (kind ``none``); originals stay stored."""
        ...

    def bulk(self, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """A block in which many points may come; the store may put off indexing until its end, and waits for it there.

        Where the block raises, nothing is waited for. Blocks may be nested; the outermost one counts.

        Args:
            on_wait: Called before the wait, where there is one.
        """
        ...

    def optimize(self) -> None:
        """Build what makes search fast (graph, quantized segments) and drop deleted points for good."""
        ...

    def flush(self) -> None:
        """Make everything acknowledged so far survive a power loss, as far as the engine can."""
        ...

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written, ``None`` for a new store."""
        ...

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest atomically."""
        ...

    def encoder_folder(self) -> Path:
        """Folder of the encoder that was adapted for this generation; it is there only when one was.

        Raises:
            ConfigError: The configuration names no place for it.
        """
        ...

    def start_generation(self, dim: int, *, origin: str = "") -> Store:
        """A store with vectors of ``dim`` dimensions that may take the place of this one.

        Until `make_live` it is nobody's; `abandon` erases it, and so does the next start where the process dies.

        Args:
            dim: Dimensions of dense vectors.
            origin: Name of what it will be a copy of. A generation that was left growing under the same name is
                continued, with what it holds; with another name, or none, it is erased and the store is empty.
        """
        ...

    def open_generation(self, number: int) -> Store:
        """The store of another generation that is kept; an error when there is none of that number."""
        ...

    def make_live(self, manifest: Mapping[str, Any]) -> None:
        """Let this generation take the place of the live one, in one atomic step.

        Args:
            manifest: Becomes the manifest of the index. The store puts its own number in it as ``generation``, and no
                ``previous`` where it cannot keep the one that was live.
        """
        ...

    def tidy(self) -> None:
        """Erase the generations that the manifest of the live one does not name."""
        ...

    def abandon(self) -> None:
        """Close and erase a generation that is not live."""
        ...

    def close(self) -> None:
        """Flush and release; further calls raise `StoreError`; closing twice is fine."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Scores how well texts answer a query."""

    @property
    def name(self) -> str: ...

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Raw logits, float32 ``(n,)`` in input order; neither sorts nor cuts."""
        ...
