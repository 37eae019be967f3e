"""A source cut into parts that workers read independently and that together give the same documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.content import READ_ERRORS, UnreadableError, check_encoding, utf8_start
from retrieval.documents.folders import read_one, walk_files
from retrieval.documents.formats import reader_of
from retrieval.documents.parquet import row_groups
from retrieval.documents.source import Source, Span

_MOST_FILES = 512
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker reads in one go.

    Args:
        number: Position among the parts, from 0; documents of a part come before those of the next.
        files: Absolute paths with their names below the root.
        span: Which stretch of the one file; ``None`` for all of all files.
        named: Whether somebody has named this very file and not a folder.
    """

    number: int
    files: tuple[tuple[Path, str], ...]
    span: Span | None
    named: bool


def list_parts(
    path: str | Path,
    config: DocumentsConfig = DocumentsConfig(),
    *,
    part_bytes: int,
    on_rejected: Callable[[Rejected], None],
) -> Iterator[Part]:
    """Cut a file or a folder into parts.

    Small files are put together, big files of JSON lines in UTF-8 and parquet tables are cut; finding the numbers of
    lines reads such a file once. Every other file is in one part.

    Args:
        path: A file or a folder, as for `open_documents`.
        config: How to read.
        part_bytes: Size of a part, roughly; at least 1.
        on_rejected: Called with everything that cannot be looked at.

    Raises:
        DocumentError: As `open_documents` before it iterates.
        ValueError: ``part_bytes`` is less than 1.
    """
    if part_bytes < 1:
        raise ValueError(f"part_bytes is at least 1, not {part_bytes}")
    check_encoding(config.encoding)
    files, named = walk_files(path, config, on_rejected)
    contents = _contents(files, config, part_bytes)
    return (Part(number, group, span, named) for number, (group, span) in enumerate(contents))


def read_part(
    part: Part, config: DocumentsConfig = DocumentsConfig(), *, on_rejected: Callable[[Rejected], None]
) -> Iterator[Document]:
    """The documents of a part, with the ids and in the order that `open_documents` gives them.

    Args:
        part: One of `list_parts`.
        config: The same that it was made with.
        on_rejected: Called with everything that cannot be used.

    Raises:
        DocumentError: As `open_documents` while it iterates.
    """
    for path, name in part.files:
        yield from read_one(path, name, config, on_rejected, named=part.named, span=part.span)


_Files = tuple[tuple[Path, str], ...]


def _contents(
    files: Iterator[tuple[Path, str]], config: DocumentsConfig, part_bytes: int
) -> Iterator[tuple[_Files, Span | None]]:
    group: list[tuple[Path, str]] = []
    size = 0
    for path, name in files:
        try:
            bytes_here = path.stat().st_size
        except OSError:
            bytes_here = 0  # reading it reports why
        if group and (size + bytes_here > part_bytes or len(group) == _MOST_FILES):
            yield tuple(group), None
            group, size = [], 0
        spans = _spans(path, name, config, part_bytes) if bytes_here > part_bytes else []
        if spans:
            yield from ((((path, name),), span) for span in spans)
        else:
            group.append((path, name))
            size += bytes_here
    if group:
        yield tuple(group), None


def _spans(path: Path, name: str, config: DocumentsConfig, part_bytes: int) -> list[Span]:
    """Stretches of a file; ``[]`` for one that is read as a whole."""
    _, source = reader_of(path, name, config, lambda rejected: None)
    try:
        if source.extension == ".parquet":
            return _group_spans(source, part_bytes)
        if source.extension not in {".jsonl", ".ndjson"} or source.compressed:
            return []
        start = utf8_start(source)
        return [] if start is None else _line_spans(path, start, part_bytes)
    except (UnreadableError, *READ_ERRORS):
        return []  # reading it reports why


def _group_spans(source: Source, part_bytes: int) -> list[Span]:
    spans: list[Span] = []
    start = number = rows = size = 0
    groups = row_groups(source)
    for place, (rows_here, bytes_here) in enumerate(groups):
        rows, size = rows + rows_here, size + bytes_here
        if size >= part_bytes or place == len(groups) - 1:
            spans.append(Span(start, place + 1, number))
            start, number, size = place + 1, rows, 0
    return spans


def _line_spans(path: Path, start: int, part_bytes: int) -> list[Span]:
    """Cut behind the first line end after every ``part_bytes``."""
    cuts = [(start, 0)]
    position, lines = start, 0
    with path.open("rb") as file:
        file.seek(start)
        # Blocks no longer than a part: no block holds two cuts.
        while block := file.read(min(_BLOCK_BYTES, part_bytes)):
            earliest = max(cuts[-1][0] + part_bytes - position - 1, 0)
            end = block.find(b"\n", earliest) + 1
            if end and position + end - cuts[-1][0] >= part_bytes:
                cuts.append((position + end, lines + block.count(b"\n", 0, end)))
            position += len(block)
            lines += block.count(b"\n")
    if cuts[-1][0] < position:
        cuts.append((position, lines))
    return [Span(begin, end, number) for (begin, number), (end, _) in pairwise(cuts)]
