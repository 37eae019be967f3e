"""Settings of the service: the section ``service`` of the same YAML file that describes the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from retrieval.config import VariableName, load_settings

Scope = Literal["read", "write", "admin"]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KeyConfig(_Section):
    """One bearer key. It stands in an environment variable; the file only names that."""

    env: VariableName = Field(description="environment variable that holds it")
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = Field(default=("read",), description="what it may do")
    tenant: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="documents this key sees and writes; null: all"
    )
    rate: Annotated[float, Field(gt=0.0, le=1e6)] | None = Field(
        default=None, description="requests a second; more are refused with 429; null: no limit"
    )
    burst: Positive | None = Field(default=None, description="requests at once; null: those of one second, at least 1")

    @model_validator(mode="after")
    def _fits_together(self) -> KeyConfig:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst belongs to a rate; give the key a rate, or leave burst out")
        return self

    @property
    def most_at_once(self) -> float:
        """Requests that may come at once, where there is a rate."""
        return float(self.burst or max(1.0, self.rate or 1.0))


class LimitsConfig(_Section):
    """What one request may ask for; more is refused with 413 or 422."""

    body_bytes: Positive = Field(default=2 * 2**20, description="a JSON request other than an ingest")
    upload_bytes: Positive = Field(default=256 * 2**20, description="the body of an ingest, all files together")
    json_bytes: Positive = Field(default=16 * 2**20, description="the body of an ingest in JSON, which is read whole")
    documents: Positive = Field(default=1_000_000, description="documents of one ingest, as read from its files")
    characters: Positive = Field(default=2**30, description="characters of text of one ingest, after unpacking")
    files: Positive = Field(default=100, description="files of one multipart ingest")
    queries: Positive = Field(default=32, description="queries of one search")
    query_characters: Positive = 4_096
    top_k: Positive = 100
    candidates: Positive = 1_000
    depth: Annotated[int, Field(ge=0)] = 200
    ids: Positive = Field(default=1_000, description="ids of one deletion")
    passages: Positive = Field(default=1_000, description="passages of one answer that shows a document")
    inputs: Positive = Field(default=2_048, description="texts of one embeddings request")
    input_characters: Positive = Field(default=100_000, description="characters of one text to embed")
    rerank_documents: Positive = Field(default=1_000, description="documents of one rerank request")
    document_characters: Positive = Field(default=100_000, description="characters of one document to rerank")


class TimeoutsConfig(_Section):
    """Seconds that things may take; what is slower is ended."""

    request: Seconds = Field(default=30.0, description="a search or another request, its wait in the queue included")
    header: Seconds = Field(default=10.0, description="until the headers of a request have come")
    body: Seconds = Field(
        default=30.0, description="until the body of a request has come; of an ingest, until more has"
    )
    write: Seconds = Field(default=30.0, description="until the client takes more of an answer")
    keep_alive: Seconds = Field(default=30.0, description="until the next request of a connection")
    reload: Seconds = Field(default=300.0, description="until another index or model serves")
    lame_duck: Annotated[float, Field(ge=0.0, le=600.0)] = Field(
        default=1.0, description="after SIGTERM, until no new connection is taken; /ready says no meanwhile"
    )
    drain: Seconds = Field(default=25.0, description="for running requests to end after SIGTERM")


class JobsConfig(_Section):
    """Ingest jobs: bodies wait on disk until they are in the index."""

    spool: str | None = Field(
        default=None,
        description="folder; null: 'uploads' in the embedded index of the start, a temporary one for other stores",
    )
    queue: Positive = Field(default=16, description="jobs that may wait; more are refused with 429")
    kept: Positive = Field(default=1_000, description="finished jobs that can still be asked about")
    streams: Positive = Field(default=64, description="clients that may follow jobs at a time")
    min_free_mb: Annotated[int, Field(ge=0)] = Field(
        default=512, description="uploads are refused below this much disk"
    )


class ServiceConfig(_Section):
    """Everything `create_app` and `retrieval serve` can be told."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    keys: tuple[KeyConfig, ...] = ()
    insecure: bool = Field(default=False, description="serve other machines without keys")
    open_metrics: bool = Field(default=False, description="/metrics without a key")
    cors_origins: tuple[str, ...] = Field(default=(), description="web pages that may call; none by default")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="host names to answer to without keys, besides those of this machine"
    )
    indexes: str | None = Field(
        default=None, description="folder of the indexes that a reload may name; null: only the configured one"
    )
    read_only: bool = Field(
        default=False, description="search beside the process that writes to the index; nothing can be changed here"
    )
    workers: Positive | None = Field(
        default=None, description="threads that search and rerank; null: one for each core"
    )
    queue: Annotated[int, Field(ge=0)] = Field(default=64, description="requests that may wait for one of them")
    embedding_names: tuple[str, ...] = Field(
        default=(),
        description="further names under which clients may ask for the encoder, such as one they have built in",
    )
    rerank_names: tuple[str, ...] = Field(default=(), description="the same for the cross-encoder")
    access_log: bool = Field(default=True, description="one line for each request")
    playground: bool = Field(default=True, description="a page to try searches at /")
    limits: LimitsConfig = LimitsConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    jobs: JobsConfig = JobsConfig()

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_named(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin == "*" or "://" not in origin or origin.endswith("/"):
                raise ValueError(f"an origin is scheme://host[:port] without a path, not {origin!r}")
        return origins


def load_service_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> ServiceConfig:
    """The section ``service`` of a YAML file, with overrides of the form ``service.port=8080``.

    Args:
        path: YAML file; ``None`` starts from the defaults.
        overrides: ``section.key=value`` each; those of other sections are left to `retrieval.config.load_config`.

    Raises:
        ConfigError: The file or a key of the section cannot be used.
    """
    return load_settings(ServiceConfig, path, overrides, section="service")
