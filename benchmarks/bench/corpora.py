"""Where the texts come from: judged collections and pairs in a folder that is named, or the documentation of Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from retrieval.datatypes import Document
from retrieval.evaluation import BeirCollection

PREFERRED = "scifact"
_SENTENCE = re.compile(r"[^.!?\n]{25,200}")


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is encoded, ingested and searched.

    Args:
        name: For tables.
        documents: All of them.
        queries: In a random order that is always the same.
        collection: Its judgements, ``None`` when it has none.
        pairs: Folder of pair files, of which larger corpora are made; ``None`` when there is none.
    """

    name: str
    documents: Sequence[Document]
    queries: Sequence[str]
    collection: BeirCollection | None
    pairs: Path | None

    @property
    def characters(self) -> int:
        """Of titles and texts."""
        return sum(len(document.title) + len(document.text) + 1 for document in self.documents)


def open_corpus(data: Path | None, limit: int | None = None) -> Corpus:
    """The judged collection of a folder, ``scifact`` if it is there, else the documentation of this Python.

    Args:
        data: A BEIR folder, or a folder with BEIR folders in it, directly or in ``beir/``, and pair files
            (``*.jsonl.gz``) in ``pairs/``; ``None`` for the documentation of Python.
        limit: Take only the first documents, and judge nothing.

    Raises:
        ValueError: The folder is not there or holds no such collection.
    """
    if data is None:
        return _python(limit)
    if not data.is_dir():
        raise ValueError(f"no folder {data}; name one with BEIR collections, or none for the documentation of Python")
    found = sorted(path.parent for pattern in ("", "*/", "beir/*/") for path in data.glob(f"{pattern}corpus.jsonl"))
    if not found:
        raise ValueError(f"no corpus.jsonl in {data}, {data}/* or {data}/beir/*: that is what a BEIR collection has")
    folder = next((path for path in found if path.name == PREFERRED), found[0])
    collection = BeirCollection.open(folder)
    pairs = next((path for path in (data / "pairs", data) if any(path.glob("*.jsonl.gz"))), None)
    queries = [collection.queries[name] for name in sorted(collection.queries)]
    Random(1).shuffle(queries)
    documents = list(collection.documents())
    if limit is not None:
        return Corpus(f"{folder.name}, first {limit}", documents[:limit], queries, None, pairs)
    return Corpus(folder.name, documents, queries, collection, pairs)


def _python(limit: int | None) -> Corpus:
    """Docstrings and help topics; what one sentence of some of them says is asked for."""
    from pipelines.python_docs import python_documents

    documents = list(python_documents())[:limit]
    chosen = Random(1).sample(documents, min(len(documents), 200))
    sentences = [found[0].strip() for document in chosen if (found := _SENTENCE.findall(document.text))]
    return Corpus("documentation of Python", documents, sentences, None, None)
