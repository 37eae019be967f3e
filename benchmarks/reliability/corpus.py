"""Documents to index: paragraphs of Python's own language reference, each document with a word that no other has."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

DOCUMENTS = 300
ADDED = 30
_FILES = 5
_LONG_EVERY, _LONG = 12, 40


def paragraphs() -> list[str]:
    """All paragraphs of the reference that say something."""
    return [text for topic in topics.values() for text in topic.split("\n\n") if len(text) > 80]


def name(number: int) -> str:
    """Id of a document."""
    return f"d{number:04}"


def word(document_id: str) -> str:
    """The word that only this document has."""
    return f"mark{document_id}x"


def documents(edition: int = 1, count: int = DOCUMENTS, *, first: int = 0) -> list[dict[str, str]]:
    """Records of a corpus; every twelfth has some forty passages.

    Args:
        edition: 1, or 2, where a third has changed, a tenth is gone, and some are new.
        count: How many there are in edition 1.
        first: Number of the first.
    """
    source = paragraphs()
    chosen = []
    for number in range(first, first + count + (ADDED if edition == 2 else 0)):
        if edition == 2 and number % 10 == 9:
            continue
        parts = _LONG if number % _LONG_EVERY == 0 else 1
        start = number * 5 % (len(source) - parts)
        opening = "revised: " if edition == 2 and number % 3 == 0 else ""
        text = "\n\n".join(f"{word(name(number))} {opening}{part}" for part in source[start : start + parts])
        chosen.append({"id": name(number), "title": f"number {number}", "text": text, "kind": f"kind-{number % 5}"})
    return chosen


def long_documents(count: int = 60) -> list[dict[str, str]]:
    """Documents with far more words to a passage than those of `documents`, which moves the average length."""
    source = sorted(paragraphs(), key=len)[-200:]
    return [
        {
            "id": f"long{number:03}",
            "title": "",
            "text": f"{word(f'long{number:03}')} {' '.join(source[number : number + 12])}",
            "kind": "long",
        }
        for number in range(count)
    ]


def short_documents(count: int = 300) -> list[dict[str, str]]:
    """Documents of a dozen words."""
    source = paragraphs()
    return [
        {
            "id": name(number),
            "title": "",
            "text": f"{word(name(number))} {' '.join(source[number].split()[:12])}",
            "kind": f"kind-{number % 5}",
        }
        for number in range(count)
    ]


def write_folder(folder: Path, records: Sequence[dict[str, str]], *, padding: int = 0) -> Path:
    """A folder with some files of JSON lines in the place of what was there.

    Args:
        folder: The folder.
        records: What to write.
        padding: Characters of a value in each record that is too long to be kept as metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    files: dict[int, list[str]] = {}
    for record in records:
        line = {**record, "padding": "x" * padding} if padding else record
        # Whatever comes and goes, a document stays in its file.
        files.setdefault(zlib.crc32(record["id"].encode()) % _FILES, []).append(f"{json.dumps(line)}\n")
    for number, lines in files.items():
        (folder / f"part-{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
