"""What a repair did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.index_checks import Finding

Done = Literal["nothing", "files", "index"]
"""``nothing`` was damaged; ``files`` were put back from a copy; the whole ``index`` was made again from its texts."""


@dataclass(frozen=True, slots=True)
class LostDocument:
    """A document of which text is gone.

    Args:
        document: Its key: source, or id; empty for passages of which nobody knows the document.
        lost: Passages that are gone.
        kept: Passages that are still there; they can be searched, and the next ingest of the source replaces them.
    """

    document: str
    lost: int
    kept: int


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did.

    Args:
        done: How much of the index was made again.
        damage: What was found, by name.
        restored: Files that were put back, with where from, and what else was put right with files.
        documents: Documents in the index now.
        passages: Passages in the index now.
        texts_from: Where texts were read: ``files`` without the engine, ``engine``, or empty.
        complete: Whether everything that the manifest counts is there, proven by the digest of all ids; ``None`` where
            nothing tells, because a run was interrupted or no manifest was left.
        reread: Documents that were read from their sources again.
        lost: Documents of which text is gone.
        doubtful: Documents of which metadata, source or title lay in a damaged place and could not be compared.
        notes: Sentences for a person.
        kept_damaged: Folder of the damaged generation, where it was kept because something is missing.
        generation: Number of the live generation.
        seconds: Wall-clock time.
    """

    done: Done
    damage: tuple[Finding, ...]
    restored: tuple[str, ...]
    documents: int
    passages: int
    texts_from: str
    complete: bool | None
    reread: int
    lost: tuple[LostDocument, ...]
    doubtful: tuple[str, ...]
    notes: tuple[str, ...]
    kept_damaged: str
    generation: int
    seconds: float
