"""Documents from where they came from, to fill in what is lost."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipelines.points import passage_id
from pipelines.preparation import Preparing
from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Passage
from retrieval.documents import open_documents
from retrieval.errors import RetrievalError

_DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Reread:
    """A document that is what it was when it was ingested.

    Args:
        document: The document.
        digest: Content hash, equal to that of the index.
        passages: What it is cut into, with their ids.
    """

    document: Document
    digest: str
    passages: dict[str, Passage]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents are wanted.

    Args:
        hashes: Content hash of documents that are wanted, by their key.
        missing: Ids of passages that are missing: a document that has one of them is wanted as well.
        known: Keys of documents that are there, where all others are wanted; ``None`` otherwise.
    """

    hashes: Mapping[str, str]
    missing: Set[str]
    known: Container[str] | None = None

    def __contains__(self, named: tuple[str, str]) -> bool:
        key, digest = named
        if key in self.hashes:
            return self.hashes[key] == digest
        if self.known is not None and key not in self.known:
            return True
        return passage_id(key, digest, 0) in self.missing


def reread(roots: Iterable[Path], wanted: Wanted, preparing: Preparing, config: DocumentsConfig) -> Iterator[Reread]:
    """Read sources again, and give the documents that are wanted and have not changed.

    Args:
        roots: Files and folders; those that are gone are passed over.
        wanted: Which documents.
        preparing: Hashes and cuts as the ingest did.
        config: How to read.
    """
    for root in sorted(roots):
        if not root.is_absolute() or not root.exists():
            continue
        try:
            documents = iter(open_documents(root, config, on_rejected=lambda rejected: None))
            while batch := list(islice(documents, _DOCUMENTS_AT_ONCE)):
                yield from _unchanged(batch, wanted, preparing)
        except (RetrievalError, OSError):
            continue


def _unchanged(batch: list[Document], wanted: Wanted, preparing: Preparing) -> Iterator[Reread]:
    digests = preparing.digests(batch)
    chosen = [
        (document, digest) for document, digest in zip(batch, digests, strict=True) if (document.key, digest) in wanted
    ]
    for (document, digest), passages in zip(chosen, preparing.cut([item for item, _ in chosen]), strict=True):
        named = {passage_id(document.key, digest, passage.index): passage for passage in passages}
        yield Reread(document, digest, named)
