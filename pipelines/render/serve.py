"""What `retrieval serve` says when it has started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.table import Table

from pipelines.render.output import visible

if TYPE_CHECKING:
    from fastapi import FastAPI

_PATHS = (
    ("search", "POST /v1/search, GET /v1/index /v1/fields"),
    ("ingest", "POST /v1/ingest, GET /v1/ingest/JOB[/events]"),
    ("documents", "GET and DELETE /v1/documents/ID, POST /v1/documents/delete"),
    ("embeddings", "POST /v1/embeddings (OpenAI), GET /v1/models"),
    ("rerank", "POST /v1/rerank, /v2/rerank (Cohere, Jina)"),
    ("operation", "GET /health /ready /metrics /openapi.json, POST /v1/admin/reload"),
)
_READING = {"documents": "GET /v1/documents/ID"}
"""What stands in place of a row where the service only reads."""


@dataclass(frozen=True, slots=True)
class Started:
    """A service that answers.

    Args:
        url: Where.
        playground: The page to try searches, ``None`` where it is left out.
        pid: Process.
        index: Folder, or URL and collection.
        documents: In the index.
        passages: In the index.
        updated: When the state that is served was written, UTC.
        encoder: Static model with its digest.
        reranker: Cross-encoder.
        workers: Threads that search.
        queue: Requests that may wait for them.
        keys: How many keys are known.
        uploads: Where uploads wait.
        keeps_uploads: Whether uploads that wait survive the process.
        read_only: Whether it only searches.
    """

    url: str
    playground: str | None
    pid: int
    index: str
    documents: int
    passages: int
    updated: str
    encoder: str
    reranker: str
    workers: int
    queue: int
    keys: int
    uploads: str
    keeps_uploads: bool
    read_only: bool

    @classmethod
    def of(cls, app: FastAPI, url: str) -> Self:
        """What is known of an application that has started."""
        service: Any = app.state.service
        with service.holder.use() as pipeline:
            manifest, rerank = pipeline.manifest, pipeline.config.rerank
            location = pipeline.store.location
        return cls(
            url=url,
            playground=f"{url}/" if service.config.playground else None,
            pid=os.getpid(),
            index=location,
            documents=manifest.documents,
            passages=manifest.passages,
            updated=manifest.updated,
            encoder=f"{manifest.encoder.name}@{manifest.encoder.digest}",
            reranker=rerank.model if rerank.enabled else "off",
            workers=service.pool.workers,
            queue=service.pool.queue,
            keys=len(service.keys),
            uploads=str(service.jobs.spool.root),
            keeps_uploads=service.keeps_uploads,
            read_only=service.config.read_only,
        )


def render_started(console: Console, started: Started) -> None:
    """Say what serves where.

    Args:
        console: Where to.
        started: The service.
    """
    everything = "search" if started.read_only else "do everything"
    keys = f"{started.keys} bearer keys" if started.keys else f"none: whoever reaches the port may {everything}"
    mode = f", read-only as of {started.updated}" if started.read_only else ""
    uploads = started.uploads if started.keeps_uploads else f"{started.uploads} (gone when this process ends)"
    rows = [
        ("index", f"{started.index}: {started.documents:,} documents, {started.passages:,} passages{mode}"),
        ("models", f"{started.encoder}, {started.reranker}"),
        ("workers", f"{started.workers}, and {started.queue} requests may wait"),
        ("keys", keys),
        ("uploads", uploads),
        ("playground", started.playground or "off"),
        *_PATHS,
    ]
    if started.read_only:
        rows = [(name, _READING.get(name, value)) for name, value in rows if name not in {"uploads", "ingest"}]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, visible(value))
    console.print(f"serving {started.url}  (Ctrl-C ends it)", style="bold")
    console.print(table)
