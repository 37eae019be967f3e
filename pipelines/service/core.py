"""Everything that requests share, as one object of the application."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from pipelines.service.auth import Keys
from pipelines.service.config import ServiceConfig
from pipelines.service.context import Principal, RequestContext, context_of
from pipelines.service.holder import PipelineHolder
from pipelines.service.jobs import JobBoard
from pipelines.service.limits import unless_gone
from pipelines.service.metrics import Metrics
from pipelines.service.rates import Rates
from pipelines.service.reload import Resolve
from pipelines.service.spool import Spool
from pipelines.service.tenants import tenant_field, within_tenant
from pipelines.service.workers import WorkerPool
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import EdgeStoreConfig
from retrieval.datatypes import Filter, IndexManifest

Result = TypeVar("Result")
_SHARE_FOR_JOBS = 0.8


class Service:
    """The pipeline in use, the workers, the jobs, the keys and the metrics of one application.

    Args:
        pipeline: Open pipeline; the service closes it.
        config: Settings.
        keys: Bearer keys.
        resolve: Gives the settings and the folder to reload with, or to reload another index with, by its name;
            ``None`` where nothing can be reloaded.

    Raises:
        ConfigError: The settings of the pipeline do not fit.
        StoreError: The folder of uploads cannot be used.
    """

    def __init__(
        self, pipeline: TwoStagePipeline, config: ServiceConfig, keys: Keys, resolve: Resolve | None = None
    ) -> None:
        tenant_field(pipeline.config)
        self.config = config
        self.keys = keys
        self.rates = Rates(config.keys)
        self.metrics = Metrics()
        self.holder = PipelineHolder(pipeline)
        self.pool = WorkerPool(
            config.workers or os.cpu_count() or 1, config.queue, on_done=self.metrics.worked, name="search"
        )
        self.writer = WorkerPool(1, config.queue, name="write")
        self.resolve = resolve
        self.draining = False
        self._temporary, spool = _spool_folder(pipeline, config)
        self.jobs = JobBoard(
            Spool(spool), self.write, config.jobs, config.limits, self.metrics, lambda: self.tenant_field
        )
        self._watch()

    @property
    def tenant_field(self) -> str:
        """Payload path of the field that tells tenants apart."""
        with self.holder.use() as pipeline:
            return tenant_field(pipeline.config)

    @property
    def keeps_uploads(self) -> bool:
        """Whether uploads that wait outlive the process."""
        return self._temporary is None

    def new_deadline(self) -> float:
        """Time of `time.monotonic` until which a request that comes now must be answered."""
        return time.monotonic() + self.config.timeouts.request

    def visible(self, where: Filter | None, principal: Principal, pipeline: TwoStagePipeline) -> Filter | None:
        """A filter that also keeps to what the principal may see.

        Args:
            where: What the client asks for; ``None`` for everything.
            principal: Who asks.
            pipeline: Its store says which field tells tenants apart.
        """
        return within_tenant(where, tenant_field(pipeline.config), principal.tenant)

    async def run(self, work: Callable[[TwoStagePipeline], Result], context: RequestContext) -> Result:
        """Call something with the pipeline in use on a worker thread.

        Args:
            work: The call; `RequestContext.remaining` tells it how long it may take.
            context: Of the request.

        Raises:
            ServiceError: 429, the queue is full; 503 or 504, the time is over.
            ClientGoneError: The client went while the call was waiting.
        """
        call = self.pool.submit(partial(self._with_pipeline, work), deadline=context.deadline)
        if self.pool.pending < self.pool.workers or context.receive is None:
            return await call
        return await unless_gone(call, context.receive)

    async def write(self, work: Callable[[TwoStagePipeline], Result], context: RequestContext | None = None) -> Result:
        """Call something that changes the index on the one thread for that.

        Args:
            work: The call.
            context: Of the request; ``None`` for work of the service itself, which may take its time.

        Raises:
            ServiceError: 429, the queue is full; 503 or 504, the time is over.
        """
        deadline = None if context is None else context.deadline
        return await self.writer.submit(partial(self._with_pipeline, work), deadline=deadline)

    def drain(self) -> None:
        """Say that the service ends: it is not ready any more, and jobs have a while to end."""
        if not self.draining:
            self.draining = True
            # Who waits for the running job has to be answered within the same time.
            self.jobs.stop_after(self.config.timeouts.drain * _SHARE_FOR_JOBS)

    async def close(self) -> None:
        """Let running calls end or stop, then close the pipeline."""
        self.drain()
        await self.jobs.stop()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.writer.close()
        self.pool.close()
        self.holder.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _with_pipeline(self, work: Callable[[TwoStagePipeline], Result]) -> Result:
        with self.holder.use() as pipeline:
            return work(pipeline)

    def _manifest(self) -> IndexManifest:
        with self.holder.use() as pipeline:
            return pipeline.manifest

    def _watch(self) -> None:
        """Show in the metrics what can be counted at any time."""
        gauge = self.metrics.gauge
        gauge("retrieval_queue_waiting", "Requests that wait for a worker.", lambda: self.pool.waiting)
        gauge("retrieval_workers", "Threads that search.", lambda: self.pool.workers)
        gauge("retrieval_workers_busy", "Of these, busy.", lambda: min(self.pool.pending, self.pool.workers))
        gauge("retrieval_writes_waiting", "Writes that wait for the one before.", lambda: self.writer.waiting)
        gauge("retrieval_jobs_waiting", "Ingest jobs that wait.", lambda: self.jobs.waiting)
        gauge("retrieval_index_documents", "Documents in the index.", lambda: self._manifest().documents)
        gauge("retrieval_index_passages", "Passages in the index.", lambda: self._manifest().passages)


def _spool_folder(pipeline: TwoStagePipeline, config: ServiceConfig) -> tuple[TemporaryDirectory[str] | None, Path]:
    """Where uploads wait, and the temporary folder that has to be erased in the end, if it is one."""
    if not config.read_only and config.jobs.spool is not None:
        return None, Path(config.jobs.spool)
    # Uploads beside an index that is only read are those of another service.
    if not config.read_only and isinstance(pipeline.config.store, EdgeStoreConfig):
        return None, Path(pipeline.store.location) / "uploads"
    temporary = TemporaryDirectory(prefix="retrieval-uploads-")
    return temporary, Path(temporary.name)


def service_of(request: Request) -> Service:
    """The service of the application that a request came to."""
    service: Service = request.app.state.service
    return service


async def _service(request: Request) -> Service:
    return service_of(request)


async def _context(request: Request) -> RequestContext:
    return context_of(request.scope)


ServiceOf = Annotated[Service, Depends(_service)]
ContextOf = Annotated[RequestContext, Depends(_context)]
