"""Judged collections in the layout of BEIR: a corpus, queries, and judgements."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from retrieval.datatypes import Document
from retrieval.errors import DocumentError

_SPLIT = re.compile(r"\w[\w.-]*")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class BeirCollection:
    """A folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``; the first two may be gzipped.

    Args:
        folder: The folder.
        split: Name of the judgements.
        queries: Text of each judged query by its id, in the order of the judgements.
        qrels: Grade of each judged document by query and document id; grades below 1 say not relevant.
    """

    folder: Path
    split: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @classmethod
    def open(cls, folder: Path | str, split: str = "test", *, qrels: Path | None = None) -> BeirCollection:
        """Read queries and judgements; the corpus is only looked for.

        Queries without judgements are left out.

        Args:
            folder: Folder of the collection.
            split: Which file of ``qrels/`` to use.
            qrels: Judgements of another file, as `read_qrels` reads them; ``None`` for those of the split.

        Raises:
            DocumentError: A file is missing or malformed, or a judged query has no text.
            ValueError: ``split`` is not a plain name.
        """
        if not _SPLIT.fullmatch(split):
            raise ValueError(f"split is the name of a file in qrels without .tsv, not {split!r}")
        folder = Path(folder)
        _find(folder, "corpus.jsonl")
        path = qrels or folder / "qrels" / f"{split}.tsv"
        if qrels is None and not path.is_file():
            there = ", ".join(sorted(other.stem for other in path.parent.glob("*.tsv"))) or "none"
            raise DocumentError(f"no judgements {path}; splits in that folder: {there}")
        judged = read_qrels(path)
        texts = {query: text for query, text in _queries(_find(folder, "queries.jsonl")) if query in judged}
        missing = [query for query in judged if query not in texts]
        if missing:
            shown = ", ".join(missing[:_SHOWN])
            raise DocumentError(f"{len(missing)} judged queries are not in {folder}/queries.jsonl: {shown}")
        return cls(folder, split, {query: texts[query] for query in judged}, judged)

    def documents(self) -> Iterator[Document]:
        """The documents of the corpus in file order, read as they are asked for.

        Raises:
            DocumentError: The file is missing, a line is malformed, or an id appears twice.
        """
        seen: set[str] = set()
        for where, record in _records(_find(self.folder, "corpus.jsonl")):
            name = _id(where, record)
            if name in seen:
                raise DocumentError(f"{where}: document {name!r} appears twice")
            seen.add(name)
            metadata = record.get("metadata")
            yield Document(
                id=name,
                text=_text(where, record, "text"),
                title=_text(where, record, "title"),
                metadata=metadata if isinstance(metadata, dict) else {},
            )

    def missing_documents(self) -> tuple[str, ...]:
        """Judged ids that the corpus does not hold, sorted; reads the whole corpus.

        Raises:
            DocumentError: As `documents`.
        """
        judged = {name for grades in self.qrels.values() for name in grades}
        for document in self.documents():
            judged.discard(document.id)
        return tuple(sorted(judged))


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: query id, document id and grade by tabs, with or without a header, or the four columns of TREC.

    Args:
        path: The file; UTF-8.

    Returns:
        Query id to document id to grade, in file order.

    Raises:
        DocumentError: The file cannot be read or holds no judgement, a line is malformed, or a pair has two grades.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
        if len(columns) == 4:
            del columns[1]
        if len(columns) != 3:
            raise DocumentError(f"{path}#{number} has {len(columns)} columns, not query id, document id and grade")
        query, document, grade = columns
        try:
            value = int(grade)
        except ValueError:
            if number == 1 and grade.isidentifier():  # the header
                continue
            raise DocumentError(f"{path}#{number}: grade {grade!r} is not a whole number") from None
        if qrels.setdefault(query, {}).setdefault(document, value) != value:
            raise DocumentError(f"{path}#{number}: document {document!r} has two grades for query {query!r}")
    if not qrels:
        raise DocumentError(f"{path} holds no judgement")
    return qrels


def _find(folder: Path, name: str) -> Path:
    tried = [folder / name, folder / f"{name}.gz"]
    for path in tried:
        if path.is_file():
            return path
    raise DocumentError(f"no BEIR collection in {folder}: neither {tried[0].name} nor {tried[1].name} is there")


def _queries(path: Path) -> Iterator[tuple[str, str]]:
    for where, record in _records(path):
        yield _id(where, record), _text(where, record, "text")


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}#{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{where} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise DocumentError(f"{where} holds a {type(record).__name__}, not an object")
        yield where, record


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, with or without a byte order mark, unpacked where its name ends in .gz.

    Raises:
        DocumentError: The file cannot be read.
    """
    try:
        with _open_text(path) as file:
            yield from file
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DocumentError(f"cannot read {path}: {error}") from error


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8-sig"))
    return path.open(encoding="utf-8-sig")


def _id(where: str, record: Mapping[str, Any]) -> str:
    name = record.get("_id")
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    if not isinstance(name, str) or not name:
        raise DocumentError(f"{where} has no _id")
    return name


def _text(where: str, record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DocumentError(f"{where}: {field} is a {type(value).__name__}, not a string")
    return value
