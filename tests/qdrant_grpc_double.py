"""The gRPC face of `tests.qdrant_double`: the calls that the server store makes, over the same in-process engine.

The client's own conversions translate, so what is shown is that nothing of ours is lost on this way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.qdrant_double_engine import Engine, RefusedError
from tests.qdrant_grpc_stub import running

_CODES = {404: grpc.StatusCode.NOT_FOUND, 409: grpc.StatusCode.ALREADY_EXISTS}
_UPDATED = messages.PointsOperationResponse(
    result=messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
)


class GrpcDouble:
    """Answers gRPC calls from an engine; thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self.port = 0
        self._engine = engine
        self._lock = threading.Lock()

    def answer(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        method = getattr(self, "_" + name.replace("/", "_").lower(), None)
        if method is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, name)
        try:
            with self._lock:
                return method(request)
        except RefusedError as error:
            context.abort(_CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error))
        except (KeyError, TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")

    def _collections_collectionexists(self, request: Any) -> Any:
        exists = messages.CollectionExists(exists=self._engine.exists(request.collection_name))
        return messages.CollectionExistsResponse(result=exists)

    def _collections_get(self, request: Any) -> Any:
        info = self._engine.info(request.collection_name)
        info["config"]["wal_config"] = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}
        return messages.GetCollectionInfoResponse(
            result=RestToGrpc.convert_collection_info(models.CollectionInfo.model_validate(info))
        )

    def _collections_create(self, request: Any) -> Any:
        body = {
            "vectors": _json(GrpcToRest.convert_vectors_config(request.vectors_config)),
            "sparse_vectors": _json(GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)),
            "hnsw_config": _json(GrpcToRest.convert_hnsw_config_diff(request.hnsw_config)),
            "metadata": GrpcToRest.convert_payload(request.metadata),
            **_optimizers(request),
        }
        for key in ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload"):
            if request.HasField(key):
                body[key] = getattr(request, key)
        if request.HasField("quantization_config"):
            body["quantization_config"] = _json(GrpcToRest.convert_quantization_config(request.quantization_config))
        return _done(self._engine.create(request.collection_name, body))

    def _collections_update(self, request: Any) -> Any:
        body = {"metadata": GrpcToRest.convert_payload(request.metadata), **_optimizers(request)}
        if request.HasField("quantization_config"):
            wanted = GrpcToRest.convert_quantization_config_diff(request.quantization_config)
            body["quantization_config"] = wanted.value if isinstance(wanted, models.Disabled) else _json(wanted)
        return _done(self._engine.update(request.collection_name, body))

    def _collections_delete(self, request: Any) -> Any:
        return _done(self._engine.delete(request.collection_name))

    def _collections_list(self, _: Any) -> Any:
        found = [messages.CollectionDescription(name=name) for name in self._engine.collections()]
        return messages.ListCollectionsResponse(collections=found)

    def _collections_listaliases(self, _: Any) -> Any:
        return messages.ListAliasesResponse(
            aliases=[messages.AliasDescription(**alias) for alias in self._engine.aliases()]
        )

    def _collections_updatealiases(self, request: Any) -> Any:
        steps = [_json(GrpcToRest.convert_alias_operations(action)) for action in request.actions]
        return _done(self._engine.change_aliases({"actions": steps}))

    def _points_createfieldindex(self, request: Any) -> Any:
        if request.HasField("field_index_params"):
            schema: Any = _json(GrpcToRest.convert_payload_schema_params(request.field_index_params))
        else:
            schema = messages.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
        self._engine.create_index(request.collection_name, {"field_name": request.field_name, "field_schema": schema})
        return _UPDATED

    def _points_upsert(self, request: Any) -> Any:
        points = [_json(GrpcToRest.convert_point_struct(point)) for point in request.points]
        self._engine.upsert(request.collection_name, {"points": points})
        return _UPDATED

    def _points_delete(self, request: Any) -> Any:
        selector = _json(GrpcToRest.convert_points_selector(request.points))
        self._engine.delete_points(request.collection_name, selector)
        return _UPDATED

    def _points_get(self, request: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(found) for found in request.ids]
        found = self._engine.retrieve(request.collection_name, {"ids": ids, **_wanted(request)})
        return messages.GetResponse(result=[_record(record) for record in found])

    def _points_scroll(self, request: Any) -> Any:
        body = {"limit": request.limit, **_filter(request), **_wanted(request)}
        if request.HasField("offset"):
            body["offset"] = GrpcToRest.convert_point_id(request.offset)
        page = self._engine.scroll(request.collection_name, body)
        following = page["next_page_offset"]
        return messages.ScrollResponse(
            result=[_record(record) for record in page["points"]],
            next_page_offset=None if following is None else RestToGrpc.convert_extended_point_id(following),
        )

    def _points_count(self, request: Any) -> Any:
        counted = self._engine.count(request.collection_name, {"exact": request.exact, **_filter(request)})
        return messages.CountResponse(result=messages.CountResult(**counted))

    def _points_querybatch(self, request: Any) -> Any:
        searches = [_json(GrpcToRest.convert_query_points(query)) for query in request.query_points]
        answers = self._engine.query_batch(request.collection_name, {"searches": searches})
        return messages.QueryBatchResponse(
            result=[
                messages.BatchResult(
                    result=[
                        RestToGrpc.convert_scored_point(models.ScoredPoint.model_validate(point))
                        for point in answer["points"]
                    ]
                )
                for answer in answers
            ]
        )

    def _points_facet(self, request: Any) -> Any:
        body = {"key": request.key, "limit": request.limit, "exact": request.exact, **_filter(request)}
        hits = self._engine.facet(request.collection_name, body)["hits"]
        return messages.FacetResponse(
            hits=[RestToGrpc.convert_facet_value_hit(models.FacetValueHit.model_validate(hit)) for hit in hits]
        )


@contextmanager
def grpc_double() -> Iterator[GrpcDouble]:
    """A double on the loopback interface."""
    with closing(Engine()) as engine, running(GrpcDouble(engine)) as double:
        yield double


def _json(model: Any) -> Any:
    if isinstance(model, dict):
        return {key: _json(value) for key, value in model.items()}
    return model.model_dump(mode="json", exclude_none=True, by_alias=True)


def _record(record: dict[str, Any]) -> Any:
    return RestToGrpc.convert_record(models.Record.model_validate({**record, "payload": record.get("payload") or {}}))


def _done(result: bool) -> Any:
    return messages.CollectionOperationResponse(result=result)


def _optimizers(request: Any) -> dict[str, Any]:
    if not request.HasField("optimizers_config"):
        return {}
    return {"optimizers_config": _json(GrpcToRest.convert_optimizers_config_diff(request.optimizers_config))}


def _filter(request: Any) -> dict[str, Any]:
    return {"filter": _json(GrpcToRest.convert_filter(request.filter))} if request.HasField("filter") else {}


def _wanted(request: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if request.HasField("with_payload"):
        wanted["with_payload"] = GrpcToRest.convert_with_payload_selector(request.with_payload)
    if request.HasField("with_vectors"):
        wanted["with_vector"] = GrpcToRest.convert_with_vectors_selector(request.with_vectors)
    return wanted
