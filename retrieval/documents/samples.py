"""A few documents from all over a source, to learn what its texts are like before they are read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.content import READ_ERRORS, UnreadableError, utf8_start
from retrieval.documents.folders import read_one, walk_files
from retrieval.documents.formats import SLOW, TABLES, reader_of
from retrieval.documents.parquet import row_groups
from retrieval.documents.source import Source, Span
from retrieval.errors import DocumentError

_FILES = 1024
_SLOW_FILES = 16
_CHARACTERS = 2**20
_WINDOWS = 64
_LEAST_CHARACTERS = 16 * 2**10
_PACKED = 3

Weighted = tuple[Document, float]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str
    size: int
    source: Source
    named: bool


def sample_documents(path: str | Path, config: DocumentsConfig = DocumentsConfig()) -> Iterator[Weighted]:
    """Read about a megabyte of a source, spread over its files and over the length of big ones.

    Of many files a random sample is read. JSON lines are read in windows spread evenly over the file, parquet tables
    from row groups spread over it, other tables from their beginning. The same source gives the same sample. What
    cannot be used is left out here; reading the source reports it.

    Args:
        path: A file or a folder, as for `open_documents`.
        config: How to read.

    Returns:
        Documents, each with the number of documents that it stands for.

    Raises:
        DocumentError: As `open_documents` before it iterates.

    Source:
        Vitter 1985, "Random sampling with a reservoir", algorithm R; Cochran 1977, "Sampling techniques", for
        stratified samples and ratio estimates.
    """
    paths, named = walk_files(path, config, _ignore)
    tables, slow, others = _choose(paths, named, config)
    total = sum(file.size for file in tables.files)
    for file in tables.files:
        characters = max(_LEAST_CHARACTERS, _CHARACTERS * file.size // max(total, 1))
        for document, weight in _from_table(file, characters):
            yield document, weight * tables.seen / len(tables.files)
    for group in (slow, others):
        yield from _from_documents(group)


class _Reservoir:
    """A uniform sample of the files that come, in random order at the end."""

    def __init__(self, limit: int) -> None:
        self.files: list[_File] = []
        self.seen = 0
        self._limit = limit
        self._chosen = random.Random(0)

    def offer(self, file: _File) -> None:
        place = self.seen if self.seen < self._limit else self._chosen.randrange(self.seen + 1)
        self.seen += 1
        if place < self._limit:
            self.files[place : place + 1] = [file]

    def shuffle(self) -> None:
        self._chosen.shuffle(self.files)


def _choose(
    paths: Iterator[tuple[Path, str]], named: bool, config: DocumentsConfig
) -> tuple[_Reservoir, _Reservoir, _Reservoir]:
    """Samples of the tables, of the files that are slow to read, and of the others."""
    tables, slow, others = _Reservoir(_FILES), _Reservoir(_SLOW_FILES), _Reservoir(_FILES)
    for path, name in paths:
        reader, source = reader_of(path, name, config, _ignore)
        if reader is None:
            continue
        group = tables if source.extension in TABLES else slow if source.extension in SLOW else others
        group.offer(_File(path, name, _size(path), source, named))
    for group in (tables, slow, others):
        group.shuffle()
    return tables, slow, others


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _from_documents(group: _Reservoir) -> Iterator[Weighted]:
    """Whole files, until enough text has been read."""
    documents: list[Document] = []
    read = characters = 0
    for file in group.files:
        found = list(_read(file, None))
        documents += found
        characters += sum(len(document.text) for document in found)
        read += 1
        if characters > _CHARACTERS:
            break
    yield from ((document, group.seen / read) for document in documents)


def _from_table(file: _File, characters: int) -> Iterator[Weighted]:
    if file.source.extension == ".parquet":
        return _from_row_groups(file, characters)
    if file.source.extension in {".jsonl", ".ndjson"} and not file.source.compressed and file.size > characters:
        try:
            start = utf8_start(file.source)
        except (UnreadableError, *READ_ERRORS):
            return iter(())
        if start is not None:
            return _from_lines(file, start, characters)
    return _from_beginning(file, characters)


def _from_row_groups(file: _File, characters: int) -> Iterator[Weighted]:
    groups = row_groups(file.source)
    number = min(len(groups), _WINDOWS)
    for place in (len(groups) * window // number for window in range(number)):
        documents, _ = _until(_read(file, Span(place, place + 1, 0)), characters // number)
        rows, _ = groups[place]
        yield from ((document, rows / len(documents) * len(groups) / number) for document in documents)


def _from_lines(file: _File, start: int, characters: int) -> Iterator[Weighted]:
    """Windows of equal size, so that long lines count no more than they should; each from the beginning of a line."""
    number = max(1, min(_WINDOWS, characters // _LEAST_CHARACTERS))
    size = characters // number
    for window in range(number):
        with file.path.open("rb") as stream:
            stream.seek(start + (file.size - start) * window // number)
            if window:
                stream.readline(file.source.config.max_line_bytes)
            begin = stream.tell()
        for document in _read(file, Span(begin, begin + size, 0)):
            yield document, file.size / (number * size)


def _from_beginning(file: _File, characters: int) -> Iterator[Weighted]:
    documents, ended = _until(_read(file, None), characters)
    size = file.size * (_PACKED if file.source.compressed else 1)
    weight = 1.0 if ended else max(1.0, size / sum(map(_characters, documents)))
    yield from ((document, weight) for document in documents)


def _until(documents: Iterator[Document], characters: int) -> tuple[list[Document], bool]:
    """Documents of so much text, and whether there are no more."""
    found: list[Document] = []
    for document in documents:
        if characters <= 0:
            return found, False
        found.append(document)
        characters -= _characters(document)
    return found, True


def _characters(document: Document) -> int:
    return len(document.id) + len(document.text) + len(document.title) + len(str(document.metadata))


def _read(file: _File, span: Span | None) -> Iterator[Document]:
    try:
        yield from read_one(file.path, file.name, file.source.config, _ignore, named=file.named, span=span)
    except (DocumentError, OSError):
        return


def _ignore(_: Rejected) -> None:
    """Reading the source reports it."""
