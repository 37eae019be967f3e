"""A scripted Qdrant over real gRPC: it records every request and gives the answers that it was told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import grpc
from qdrant_client import grpc as messages
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc

_UPDATE = messages.PointsOperationResponse(
    result=messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
)
_DONE = messages.CollectionOperationResponse(result=True)


@dataclass
class QdrantGrpc:
    """A server with the collection ``books``; names are those of the services: ``Points/Upsert``."""

    port: int = 0
    exists: bool = True
    metadata: dict[str, str] = field(default_factory=dict)
    indexed: tuple[str, ...] = ("document", "document_id", "source")
    answers: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, list[tuple[grpc.StatusCode, dict[str, str]]]] = field(default_factory=dict)
    sent: list[tuple[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def fail(self, name: str, *codes: grpc.StatusCode, trailing: dict[str, str] | None = None) -> None:
        """Answer the next calls with these codes."""
        self.failures[name] = [(code, trailing or {}) for code in codes]

    def to(self, name: str) -> list[Any]:
        """The requests of a call."""
        return [request for called, request in self.sent if called == name]

    def answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.sent.append((name, request))
        self.keys.add(dict(context.invocation_metadata()).get("api-key"))
        if waiting := self.failures.get(name):
            code, trailing = waiting.pop(0)
            context.set_trailing_metadata(tuple(trailing.items()))
            context.abort(code, "in its own words")
        if name == "Collections/Create":
            self.exists = True
        if name in {"Collections/Create", "Collections/Update"}:
            self.metadata |= {key: value.string_value for key, value in request.metadata.items()}
        return {**self._known(), **self.answers}[name]

    def _known(self) -> dict[str, Any]:
        return {
            "Collections/CollectionExists": messages.CollectionExistsResponse(
                result=messages.CollectionExists(exists=self.exists)
            ),
            "Collections/Get": messages.GetCollectionInfoResponse(result=self._info()),
            "Collections/List": messages.ListCollectionsResponse(),
            "Collections/ListAliases": messages.ListAliasesResponse(),
            "Collections/Create": _DONE,
            "Collections/Update": _DONE,
            "Collections/Delete": _DONE,
            "Collections/UpdateAliases": _DONE,
            "Points/Upsert": _UPDATE,
            "Points/Delete": _UPDATE,
            "Points/CreateFieldIndex": _UPDATE,
            "Points/Count": messages.CountResponse(result=messages.CountResult(count=5)),
            "Points/Get": messages.GetResponse(),
            "Points/Scroll": messages.ScrollResponse(),
            "Points/Facet": messages.FacetResponse(),
            "Points/QueryBatch": messages.QueryBatchResponse(),
        }

    def _info(self) -> Any:
        vectors = messages.VectorsConfig(
            params_map=messages.VectorParamsMap(
                map={"dense": messages.VectorParams(size=4, distance=messages.Distance.Cosine)}
            )
        )
        sparse = messages.SparseVectorConfig(map={"bm25": messages.SparseVectorParams(modifier=messages.Modifier.Idf)})
        keyword = messages.PayloadSchemaInfo(data_type=messages.PayloadSchemaType.Keyword, points=5)
        return messages.CollectionInfo(
            status=messages.CollectionStatus.Green,
            optimizer_status=messages.OptimizerStatus(ok=True),
            segments_count=1,
            payload_schema=dict.fromkeys(self.indexed, keyword),
            config=messages.CollectionConfig(
                params=messages.CollectionParams(vectors_config=vectors, sparse_vectors_config=sparse),
                hnsw_config=messages.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=messages.OptimizersConfigDiff(
                    deleted_threshold=0.2,
                    vacuum_min_vector_number=1000,
                    default_segment_number=0,
                    flush_interval_sec=5,
                    indexing_threshold=20_000,
                ),
                wal_config=messages.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0, wal_retain_closed=1),
                metadata={key: messages.Value(string_value=value) for key, value in self.metadata.items()},
            ),
        )


class Answers(Protocol):
    """What can be served."""

    port: int

    def answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any: ...


AnswersT = TypeVar("AnswersT", bound=Answers)


def _servicer(base: type, service: str, script: Answers) -> Any:
    def call(name: str) -> Callable[[Any, Any, Any], Any]:
        return lambda _, request, context: script.answer(f"{service}/{name}", request, context)

    return type(service, (base,), {name: call(name) for name in vars(base) if name[0].isupper()})()


@contextmanager
def running(script: AnswersT, credentials: grpc.ServerCredentials | None = None) -> Iterator[AnswersT]:
    """Serve a script on the loopback interface.

    Args:
        script: Gets the requests as ``Service/Call``; its ``port`` is set.
        credentials: For TLS; ``None`` serves without.
    """
    server = grpc.server(ThreadPoolExecutor(2))
    collections = _servicer(collections_service_pb2_grpc.CollectionsServicer, "Collections", script)
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(collections, server)
    points = _servicer(points_service_pb2_grpc.PointsServicer, "Points", script)
    points_service_pb2_grpc.add_PointsServicer_to_server(points, server)
    if credentials is None:
        script.port = server.add_insecure_port("127.0.0.1:0")
    else:
        script.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield script
    finally:
        server.stop(None).wait()
