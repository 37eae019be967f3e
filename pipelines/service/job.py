"""One ingest job: what is known of it, and how that is kept."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pipelines.service.errors import ServiceError
from pipelines.service.logs import log
from pipelines.service.uploads import Kind

State = Literal["queued", "running", "done", "failed"]


@dataclass(slots=True, eq=False)
class Job:
    """One upload on its way into the index; changed on the event loop only.

    Args:
        id: 32 hex digits.
        kind: What the files of the upload are.
        tenant: Whose documents; ``None`` for nobody's.
        created: ISO 8601 UTC.
        state: Where it is.
        attempts: How often it was begun.
        finished: ISO 8601 UTC, ``None`` before.
        progress: What the run has done so far.
        report: What it did, once it is done.
        error: Status, code and detail of why it failed.
    """

    id: str
    kind: Kind
    tenant: str | None
    created: str
    state: State = "queued"
    attempts: int = 0
    finished: str | None = None
    progress: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    version: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in {"done", "failed"}

    def record(self) -> dict[str, Any]:
        """What is kept on disk."""
        names = ("id", "kind", "tenant", "created", "state", "attempts", "finished", "report", "error")
        return {name: getattr(self, name) for name in names}

    def change(self) -> None:
        """Wake everybody who follows it."""
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_beyond(self, version: int) -> None:
        """Wait until it is another version than the one that the caller has seen."""
        while self.version == version:
            await self._changed.wait()


def job_of(record: dict[str, Any]) -> Job | None:
    """The job of a record, to be begun again if it was not over; ``None`` when the record cannot be used."""
    try:
        job = Job(**{name: record[name] for name in ("id", "kind", "tenant", "created", "state", "attempts")})
        job.finished, job.report, job.error = record["finished"], record["report"], record["error"]
    except (KeyError, TypeError):
        log("the record of a job cannot be used", level=logging.ERROR, job=str(record.get("id"))[:64])
        return None
    if not job.over:
        job.state = "queued"
    return job


def error_record(error: ServiceError) -> dict[str, Any]:
    """What a job keeps of the error that ended it."""
    return {"status": error.status_code, "code": error.code, "detail": error.detail}


def now() -> str:
    """This moment in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
