"""What the process that writes an index and the process that prepares its passages say to each other.

Messages are pickles behind each other on a pipe; both ends are this library, of the same version.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.preparation import ReadBatch
from retrieval.config import Bm25Config, ChunkingConfig, DocumentsConfig
from retrieval.datatypes import Document, EncoderFingerprint, Passage, Rejected
from retrieval.encoders import EncodedPassages
from retrieval.errors import RetrievalError

AHEAD = 3
"""Batches that are read, and asked for, before the first of them is written."""

REMEDY = (
    "what was written stays, so run the same ingest again, with documents.second_process: false where memory is short"
)
OUT_OF_MEMORY = f"the process that reads and encodes ran out of memory; {REMEDY}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the other process needs to do the work.

    Args:
        version: Version of this library.
        encoder_folder: Folder of the static model.
        dimensions: Matryoshka truncation; ``None`` keeps all.
        fingerprint: Of the encoder that this makes.
        bm25: Settings of the BM25 encoder.
        chunking: Settings of the chunker.
        path: What to read; ``None`` for documents that are sent.
        documents: How to read it.
        log_level: Least level of log records to send.
    """

    version: str
    encoder_folder: Path
    dimensions: int | None
    fingerprint: EncoderFingerprint
    bm25: Bm25Config
    chunking: ChunkingConfig
    path: Path | None
    documents: DocumentsConfig
    log_level: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The other process can work; ``refusal`` says why not."""

    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """An error ended the reading, or else the answering of requests."""

    error: Exception
    reading: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """There are no more documents."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Documents, field by field: as records they would take twice as long to carry."""

    ids: list[str]
    texts: list[str]
    titles: list[str]
    metadata: list[Any]
    sources: list[str]

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Columns:
        """Take documents apart."""
        return cls(
            [document.id for document in documents],
            [document.text for document in documents],
            [document.title for document in documents],
            [document.metadata for document in documents],
            [document.source for document in documents],
        )

    def documents(self) -> list[Document]:
        """Put them together again."""
        return list(map(Document, self.ids, self.texts, self.titles, self.metadata, self.sources))


@dataclass(frozen=True, slots=True)
class Texts:
    """What it takes of documents to cut and encode them; strings and nothing else, so that they always arrive."""

    texts: list[str]
    titles: list[str]

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Texts:
        """Take it from documents."""
        return cls([_plain(each.text) for each in documents], [_plain(each.title) for each in documents])

    def documents(self) -> list[Document]:
        """Documents with this text and title, and without a name."""
        return [Document("", text, title) for text, title in zip(self.texts, self.titles, strict=True)]


@dataclass(frozen=True, slots=True)
class Read:
    """A batch of documents, and how long reading has taken so far."""

    documents: Columns
    digests: list[str]
    rejected: list[tuple[str, str]]
    is_last: bool
    busy: float

    @classmethod
    def of(cls, batch: ReadBatch, busy: float) -> Read:
        """Take a batch apart."""
        rejected = [(each.source, each.reason) for each in batch.rejected]
        return cls(Columns.of(batch.documents), list(batch.digests), rejected, batch.is_last, busy)

    def batch(self) -> ReadBatch:
        """Put it together again."""
        rejected = [Rejected(source, reason) for source, reason in self.rejected]
        return ReadBatch(self.documents.documents(), self.digests, rejected, self.is_last)


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut and encode documents: these rows of the oldest batch that was read and not asked for, or these texts."""

    average_length: float
    rows: Sequence[int] = ()
    texts: Texts | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where documents are cut: for each its passages as (start, end, headings)."""

    passages: list[list[tuple[int, int, tuple[str, ...]]]]

    @classmethod
    def of(cls, passages: Sequence[Sequence[Passage]]) -> Places:
        """The places of passages."""
        return cls([[(each.start, each.end, each.headings) for each in of_document] for of_document in passages])

    def cut(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """The passages of the documents that were cut."""
        return [
            [
                Passage(document.id, index, document.text[start:end], start, end, document.title, headings)
                for index, (start, end, headings) in enumerate(places)
            ]
            for document, places in zip(documents, self.passages, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of a group of passages, and how long cutting and encoding have taken so far."""

    passages: EncodedPassages
    busy: float


class Channel:
    """One end of two pipes. Sending is safe from several threads."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Send one message; waits while the pipe is full.

        Raises:
            OSError: The other end is closed.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._outgoing.write(data)
            self._outgoing.flush()

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: The other end is closed.
        """
        try:
            return pickle.load(self._incoming)
        except pickle.UnpicklingError as error:
            raise EOFError("the other process died within a message") from error

    def close(self) -> None:
        """Close both pipes."""
        for stream in (self._outgoing, self._incoming):
            try:
                stream.close()
            except OSError:
                # What could not be written any more is for nobody.
                continue


def portable(error: Exception) -> Exception:
    """The error itself, or one that says the same where it cannot be carried from process to process."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    if type(copy) is type(error) and str(copy) == str(error):
        return error
    kind = RetrievalError if isinstance(error, RetrievalError) else RuntimeError
    return kind(f"{error}" if isinstance(error, RetrievalError) else f"{type(error).__name__}: {error}")


def _plain(text: str) -> str:
    """The same as a string of no class of its own, which the other process may not have."""
    return text if type(text) is str else "".join((text,))
