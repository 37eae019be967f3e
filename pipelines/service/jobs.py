"""Ingest jobs: one after the other, followed while they run, taken up again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict

from pipelines.service.config import JobsConfig, LimitsConfig
from pipelines.service.context import Principal
from pipelines.service.errors import ServiceError, saturated, service_error, unavailable
from pipelines.service.intake import Intake, Outcome, Owner
from pipelines.service.job import Job, error_record, job_of, now
from pipelines.service.logs import LOG, log
from pipelines.service.metrics import Metrics
from pipelines.service.spool import Spool, Upload
from pipelines.service.uploads import Kind, disk_error
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import IngestProgress

Write = Callable[[Callable[[TwoStagePipeline], Outcome]], Awaitable[Outcome]]

_ATTEMPTS = 3
_GUESS_S = 5.0


class JobBoard:
    """All jobs of a service.

    Args:
        spool: Where uploads wait.
        write: Calls something with the pipeline on the thread that writes.
        config: How many may wait and are kept.
        limits: What one upload may hold.
        metrics: Counts documents.
        field: Gives the payload path of the tenant.
    """

    def __init__(
        self,
        spool: Spool,
        write: Write,
        config: JobsConfig,
        limits: LimitsConfig,
        metrics: Metrics,
        field: Callable[[], str],
    ) -> None:
        self.spool = spool
        self._write = write
        self._config = config
        self._limits = limits
        self._metrics = metrics
        self._field = field
        self._jobs: dict[str, Job] = {}
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._receiving = 0
        self._streams = 0
        self._runner: asyncio.Task[None] | None = None
        self._stop_at: float | None = None
        self._mean_s = _GUESS_S

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return self._waiting.qsize()

    def ending(self) -> bool:
        """Whether no further job is begun."""
        return self._stop_at is not None

    def start(self) -> None:
        """Take up what an earlier process left, and begin to work."""
        for record in sorted(self.spool.records(), key=lambda record: str(record.get("created"))):
            job = job_of(record)
            if job is None:
                continue
            self._jobs[job.id] = job
            if not job.over:
                self._waiting.put_nowait(job)
        if self.waiting:
            log("jobs taken up again", jobs=self.waiting)
        self._forget_old()
        self._runner = asyncio.create_task(self._run_all(), name="ingest jobs")

    def stop_after(self, seconds: float) -> None:
        """Let the running job go on for some seconds; then it stops and waits for the next start, as all others do."""
        self._stop_at = time.monotonic() + seconds
        for job in self._jobs.values():
            if not job.over:
                job.change()

    async def stop(self) -> None:
        """Wait until the running job has ended or stopped."""
        if self._stop_at is None:
            self.stop_after(0.0)
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        self.spool.close()

    def require_room(self) -> None:
        """Refuse an upload before it comes when too many wait or too little disk is left.

        Raises:
            ServiceError: 429 or 507.
        """
        if self.ending():
            raise unavailable("closing", "the service is shutting down")
        if self.waiting + self._receiving >= self._config.queue:
            raise saturated("jobs_full", "too many ingest jobs wait already", self._mean_s)
        if self.spool.free_bytes() < self._config.min_free_mb * 2**20 + self._limits.upload_bytes:
            raise ServiceError(507, "disk_full", "too little disk is left for an upload")

    async def receive(self, principal: Principal, take: Callable[[Upload], Awaitable[Kind]]) -> Job:
        """Make a job of an upload; once this returns, it survives the process.

        Args:
            principal: Who uploads.
            take: Puts the body into the upload.

        Raises:
            ServiceError: 429 or 507, there is no room; and what ``take`` raises.
        """
        self.require_room()
        self._receiving += 1
        upload: Upload | None = None
        try:
            upload = await asyncio.to_thread(self.spool.new, secrets.token_hex(16))
            kind = await take(upload)
            job = Job(upload.folder.name, kind, principal.tenant, now())
            await asyncio.to_thread(upload.save, job.record())
        except BaseException as error:
            if upload is not None:
                # Not awaited: the request may have been cancelled.
                upload.erase()
            if isinstance(error, OSError):
                raise disk_error(error) from error
            raise
        finally:
            self._receiving -= 1
        self._jobs[job.id] = job
        self._waiting.put_nowait(job)
        return job

    def get(self, job_id: str, principal: Principal) -> Job:
        """A job that the principal may know of.

        Raises:
            ServiceError: 404.
        """
        job = self._jobs.get(job_id)
        if job is None or principal.tenant not in {None, job.tenant}:
            raise ServiceError(404, "unknown_job", "there is no such ingest job, or it was long ago")
        return job

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Count one client that follows a job.

        Raises:
            ServiceError: 429, too many do.
        """
        if self._streams >= self._config.streams:
            raise saturated("streams_full", "too many clients follow jobs already", 5.0)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _run_all(self) -> None:
        while not self.ending():
            job = await self._waiting.get()
            if self.ending():
                return
            running = asyncio.ensure_future(self._run(job))
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                # The service ends: the job stops by itself, and its record is written before the process goes.
                await running
                raise

    async def _run(self, job: Job) -> None:
        upload = self.spool.upload(job.id)
        begun = time.monotonic()
        try:
            job.attempts += 1
            if job.attempts > _ATTEMPTS:
                raise ServiceError(500, "gave_up", f"the process ended {_ATTEMPTS} times while it worked on this job")
            job.state = "running"
            job.change()
            await asyncio.to_thread(upload.save, job.record())
            intake = Intake(upload, job.kind, Owner(job.tenant, self._field()), self._limits, self._stopping)
            loop = asyncio.get_running_loop()

            def show(progress: IngestProgress) -> None:
                loop.call_soon_threadsafe(_progress, job, progress)

            outcome = await self._write(lambda pipeline: intake.run(pipeline, show))
            self._finish(job, outcome)
        except Exception as error:
            self._fail(job, error)
        if job.over:
            self._mean_s += 0.3 * (time.monotonic() - begun - self._mean_s)
            await asyncio.to_thread(upload.drop_files)
        await self._save(job, upload)
        job.change()
        log("ingest job", job=job.id, state=job.state, seconds=round(time.monotonic() - begun, 3))
        self._forget_old()

    def _finish(self, job: Job, outcome: Outcome) -> None:
        report = outcome.report
        if outcome.interrupted:
            job.state = "queued"
            # It was this process that stopped it, so the attempt does not count.
            job.attempts -= 1
            return
        for name in ("added", "changed", "unchanged"):
            self._metrics.ingested.labels(name).inc(getattr(report, name))
        self._metrics.ingested.labels("rejected").inc(report.rejected_count)
        job.report = asdict(report)
        job.finished = now()
        job.state = "done" if outcome.refused is None else "failed"
        job.error = None if outcome.refused is None else error_record(outcome.refused)

    def _fail(self, job: Job, error: Exception) -> None:
        known = service_error(error)
        LOG.error(
            "ingest job failed",
            exc_info=(type(error), error, error.__traceback__),
            extra={"fields": {"job": job.id, "code": None if known is None else known.code}},
        )
        job.state = "failed"
        job.finished = now()
        job.error = error_record(known or ServiceError(500, "internal", "something went wrong; the log says what"))

    async def _save(self, job: Job, upload: Upload) -> None:
        try:
            await asyncio.to_thread(upload.save, job.record())
        except OSError as error:
            # The job is done all the same; at worst it is done again after a restart, which changes nothing.
            log("the record of a job was not written", level=logging.ERROR, job=job.id, error=type(error).__name__)

    def _stopping(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _forget_old(self) -> None:
        over = [job for job in self._jobs.values() if job.over]
        for job in over[: max(0, len(over) - self._config.kept)]:
            del self._jobs[job.id]
            self.spool.upload(job.id).erase()


def _progress(job: Job, progress: IngestProgress) -> None:
    if job.state == "running":
        job.progress = asdict(progress)
        job.change()
