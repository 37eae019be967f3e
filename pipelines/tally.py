"""What an ingest has done so far."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from retrieval.datatypes import IncomingDuplicate, IngestProgress, IngestReport, Rejected

KEPT_REJECTIONS = 1000


@dataclass(slots=True)
class Tally:
    """The only mutable state of an ingest beside its writer."""

    started: float = field(default_factory=time.perf_counter)
    documents: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    rejected: list[Rejected] = field(default_factory=list)
    rejected_count: int = 0
    rejected_sources: set[str] = field(default_factory=set)
    duplicates: list[IncomingDuplicate] = field(default_factory=list)
    duplicate_count: int = 0

    def reject(self, rejection: Rejected) -> None:
        """Note something that cannot be used; the first `KEPT_REJECTIONS` are kept."""
        self.rejected_count += 1
        if len(self.rejected) < KEPT_REJECTIONS:
            self.rejected.append(rejection)
        self.rejected_sources.add(rejection.source)

    def duplicate(self, found: IncomingDuplicate) -> None:
        """Note a near-equal document; the first `KEPT_REJECTIONS` are kept."""
        self.duplicate_count += 1
        if len(self.duplicates) < KEPT_REJECTIONS:
            self.duplicates.append(found)

    def progress(self, stage: str, passages: int | None = None) -> IngestProgress:
        """What to show; ``passages`` in the place of those written."""
        return IngestProgress(
            stage=stage,
            documents=self.documents,
            passages=self.passages if passages is None else passages,
            rejected=self.rejected_count,
            seconds=time.perf_counter() - self.started,
            read_seconds=self.read_seconds,
            encode_seconds=self.encode_seconds,
            write_seconds=self.write_seconds,
        )

    def report(self) -> IngestReport:
        """The final report."""
        return IngestReport(
            added=self.added,
            changed=self.changed,
            unchanged=self.unchanged,
            removed=self.removed,
            rejected=tuple(self.rejected),
            rejected_count=self.rejected_count,
            passages=self.passages,
            seconds=time.perf_counter() - self.started,
            duplicates=tuple(self.duplicates),
            duplicate_count=self.duplicate_count,
            read_seconds=self.read_seconds,
            encode_seconds=self.encode_seconds,
            write_seconds=self.write_seconds,
        )


def document_mark(key: str) -> bytes:
    """16 bytes that stand for a document in the memory of one run."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
