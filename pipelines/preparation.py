"""The half of an ingest that needs no store: read, hash, cut and encode; here in the process that writes, too.

`pipelines.preparation_process` does the same in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from retrieval.chunking import Chunker
from retrieval.datatypes import Document, Passage, Rejected
from retrieval.encoders import EncodedPassages, encode_passages
from retrieval.protocols import Encoder, SparseEncoder

PASSAGES_PER_BATCH = 512
DOCUMENTS_PER_LOOKUP = 256
_CHARACTERS_PER_LOOKUP = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class ReadBatch:
    """Documents that are looked up together, in the order of the source.

    Args:
        documents: The documents.
        digests: Content hash of each, of the document and of how it is cut.
        rejected: What the reader could not use, up to the last of them.
        is_last: Whether nothing comes behind them.
    """

    documents: Sequence[Document]
    digests: Sequence[str]
    rejected: Sequence[Rejected] = ()
    is_last: bool = False


@dataclass(slots=True)
class Busy:
    """Seconds of work, waiting for others left out."""

    read: float = 0.0
    encode: float = 0.0


class Preparation(Protocol):
    """What a writer takes its documents from. Calls come in the order `read`, `cut`, `passages`, `encoded`."""

    @property
    def ahead(self) -> int:
        """How many batches may be read, and cutting them asked for, before the first of them is written."""
        ...

    @property
    def busy(self) -> Busy:
        """How long the work has taken so far."""
        ...

    def has_read(self) -> bool:
        """Whether `read` need not wait for another process."""
        ...

    def read(self) -> ReadBatch | None:
        """The next batch; ``None`` behind the last."""
        ...

    def cut(self, batch: ReadBatch, rows: Sequence[int]) -> None:
        """Ask for the passages of some documents of a batch."""
        ...

    def passages(self) -> list[list[Passage]]:
        """The passages of each document of the oldest `cut` that was not answered; none for an empty document."""
        ...

    def encoded(self, groups: Sequence[Sequence[Passage]], average_length: float) -> Iterator[EncodedPassages]:
        """The vectors of passages, group by group.

        Args:
            groups: What `passages` gave last, `in_writing_order`, in groups of `PASSAGES_PER_BATCH`.
            average_length: Terms per passage.
        """
        ...

    def close(self) -> None:
        """Stop the work, wherever it is."""
        ...


@dataclass(slots=True)
class Preparing:
    """The work itself.

    Args:
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        chunker: Cuts documents into passages.
    """

    encoder: Encoder
    sparse: SparseEncoder
    chunker: Chunker
    busy: Busy = field(default_factory=Busy)
    _to_json: json.JSONEncoder = field(default_factory=lambda: json.JSONEncoder(sort_keys=True))
    _chunking: str = ""

    def __post_init__(self) -> None:
        self._chunking = json.dumps(self.chunker.fingerprint, sort_keys=True)

    def digests(self, documents: Sequence[Document]) -> list[str]:
        """Content hash of each document and of how it is cut, 32 hex digits."""
        return [self._digest(document) for document in documents]

    def cut(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """Passages of each document."""
        started = time.perf_counter()
        passages = self.chunker.split_many(documents)
        self.busy.encode += time.perf_counter() - started
        return passages

    def encode(self, passages: Sequence[Passage], average_length: float) -> EncodedPassages:
        """Vectors of passages."""
        started = time.perf_counter()
        texts = [passage.indexed_text for passage in passages]
        encoded = encode_passages(self.encoder, self.sparse, texts, average_length)
        self.busy.encode += time.perf_counter() - started
        return encoded

    def batches(self, documents: Iterable[Document], rejected: list[Rejected]) -> Iterator[ReadBatch]:
        """Read a stream of documents batch by batch.

        Args:
            documents: The stream.
            rejected: Where its reader puts what it cannot use; each batch takes what is there.
        """
        source = document_batches(documents)
        started = time.perf_counter()
        for batch, is_last in source:
            found = tuple(rejected)
            rejected.clear()
            read = ReadBatch(batch, self.digests(batch), found, is_last)
            self.busy.read += time.perf_counter() - started
            yield read
            started = time.perf_counter()
        if rejected:
            yield ReadBatch((), (), tuple(rejected), True)
            rejected.clear()

    def _digest(self, document: Document) -> str:
        content = [document.id, document.title, document.text, document.metadata, document.source, self._chunking]
        return hashlib.sha256(self._to_json.encode(content).encode()).hexdigest()[:32]


class PreparationHere:
    """Does all of it when it is asked, in this process; see `Preparation`.

    Args:
        work: The parts that do it.
        documents: Stream of documents.
        rejected: Where its reader puts what it cannot use.
    """

    ahead = 1

    def __init__(self, work: Preparing, documents: Iterable[Document], rejected: list[Rejected]) -> None:
        self._work = work
        self._batches = work.batches(documents, rejected)
        self._asked: list[Document] = []

    @property
    def busy(self) -> Busy:
        """See `Preparation`."""
        return self._work.busy

    def has_read(self) -> bool:
        """See `Preparation`."""
        return True

    def read(self) -> ReadBatch | None:
        """See `Preparation`."""
        return next(self._batches, None)

    def cut(self, batch: ReadBatch, rows: Sequence[int]) -> None:
        """See `Preparation`."""
        self._asked = [batch.documents[row] for row in rows]

    def passages(self) -> list[list[Passage]]:
        """See `Preparation`."""
        return self._work.cut(self._asked)

    def encoded(self, groups: Sequence[Sequence[Passage]], average_length: float) -> Iterator[EncodedPassages]:
        """See `Preparation`."""
        return (self._work.encode(group, average_length) for group in groups)

    def close(self) -> None:
        """See `Preparation`."""


def in_writing_order(passages: Sequence[Sequence[Passage]]) -> Iterator[tuple[int, Passage]]:
    """The passages of some documents with the number of their document; the first of each document comes last."""
    return (
        (number, passage)
        for number, of_document in enumerate(passages)
        for passage in (*of_document[1:], *of_document[:1])
    )


def document_batches(documents: Iterable[Document]) -> Iterator[tuple[list[Document], bool]]:
    """Documents to look up together: few enough that huge ones do not pile up in memory.

    Yields:
        A batch, and whether it is known to be the last.
    """
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == DOCUMENTS_PER_LOOKUP or characters >= _CHARACTERS_PER_LOOKUP:
            yield batch, False
            batch, characters = [], 0
    if batch:
        yield batch, True
