"""What `tests.qdrant_double` keeps: collections, aliases and snapshots over the in-process engine of qdrant-client."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import time
from typing import Any

from qdrant_client import QdrantClient, models

OPTIMIZERS = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "indexing_threshold": 10_000,
    "flush_interval_sec": 5,
}
HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
_PARAMETERS = (
    "vectors",
    "sparse_vectors",
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
)


class RefusedError(Exception):
    """An answer with a status other than 200.

    Args:
        status: HTTP status.
        message: The server's words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """Collections with the operations that a Qdrant server offers over REST, JSON in and out; not thread-safe."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self._configs: dict[str, dict[str, Any]] = {}
        self._aliases: dict[str, str] = {}
        self._snapshots: dict[str, dict[str, bytes]] = {}

    def close(self) -> None:
        self._client.close()

    def collections(self) -> list[str]:
        return sorted(self._configs)

    def exists(self, name: str) -> bool:
        return name in self._configs or name in self._aliases

    def resolve(self, name: str) -> str:
        """The collection behind a name or alias."""
        found = self._aliases.get(name, name)
        if found not in self._configs:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        return found

    def create(self, name: str, body: dict[str, Any]) -> bool:
        asked = models.CreateCollection.model_validate(body)
        if name in self._configs or name in self._aliases:
            raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
        self._client.create_collection(
            name, vectors_config=asked.vectors or {}, sparse_vectors_config=asked.sparse_vectors
        )
        params = {key: body[key] for key in _PARAMETERS if body.get(key) is not None}
        self._configs[name] = {
            "params": {"shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1, **params},
            "hnsw_config": HNSW | _given(body, "hnsw_config"),
            "optimizer_config": OPTIMIZERS | _given(body, "optimizers_config"),
            "quantization_config": body.get("quantization_config"),
            "metadata": dict(body.get("metadata") or {}),
            "schema": {},
        }
        return True

    def update(self, name: str, body: dict[str, Any]) -> bool:
        models.UpdateCollection.model_validate(body)
        config = self._configs[self.resolve(name)]
        config["hnsw_config"] |= _given(body, "hnsw_config")
        config["optimizer_config"] |= _given(body, "optimizers_config")
        config["params"] |= _given(body, "params")
        for vector, change in _given(body, "vectors").items():
            config["params"]["vectors"][vector] |= {key: value for key, value in change.items() if value is not None}
        if body.get("quantization_config") is not None:
            wanted = body["quantization_config"]
            config["quantization_config"] = None if wanted == "Disabled" else wanted
        config["metadata"] |= body.get("metadata") or {}
        return True

    def delete(self, name: str) -> bool:
        if name not in self._configs:
            return False
        del self._configs[name]
        self._client.delete_collection(name)
        self._aliases = {alias: target for alias, target in self._aliases.items() if target != name}
        return True

    def info(self, name: str) -> dict[str, Any]:
        collection = self.resolve(name)
        config = copy.deepcopy(self._configs[collection])
        points = self._client.count(collection).count
        threshold = config["optimizer_config"]["indexing_threshold"]
        sizes = [vector["size"] for vector in config["params"].get("vectors", {}).values()]
        kilobytes = points * sum(sizes) * 4 / 1024
        schema = config.pop("schema")
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "points_count": points,
            "indexed_vectors_count": points if threshold and kilobytes > threshold else 0,
            "payload_schema": {key: self._indexed(collection, key, kind) for key, kind in schema.items()},
            "config": config,
        }

    def _indexed(self, collection: str, key: str, kind: Any) -> dict[str, Any]:
        filled = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
        entry: dict[str, Any] = {"points": self._client.count(collection, filled).count}
        if isinstance(kind, dict):
            return entry | {"data_type": kind["type"], "params": kind}
        return entry | {"data_type": kind}

    def cluster(self, name: str) -> dict[str, Any]:
        config, points = self._configs[self.resolve(name)], self.count(name, {"exact": True})["count"]
        shards = config["params"]["shard_number"]
        local = [
            {"shard_id": number, "points_count": points if number == 0 else 0, "state": "Active"}
            for number in range(shards)
        ]
        return {"peer_id": 1, "shard_count": shards, "local_shards": local, "remote_shards": [], "shard_transfers": []}

    def aliases(self, collection: str | None = None) -> list[dict[str, str]]:
        wanted = None if collection is None else self.resolve(collection)
        return [
            {"alias_name": alias, "collection_name": target}
            for alias, target in sorted(self._aliases.items())
            if wanted in {None, target}
        ]

    def change_aliases(self, body: dict[str, Any]) -> bool:
        changed = dict(self._aliases)
        for step in models.ChangeAliasesOperation.model_validate(body).actions:
            if isinstance(step, models.CreateAliasOperation):
                alias, target = step.create_alias.alias_name, step.create_alias.collection_name
                if alias in self._configs:
                    raise RefusedError(409, f"Wrong input: Collection `{alias}` already exists!")
                changed[alias] = self.resolve(target)
            elif isinstance(step, models.DeleteAliasOperation):
                if changed.pop(step.delete_alias.alias_name, None) is None:
                    raise RefusedError(404, f"Not found: Alias {step.delete_alias.alias_name} does not exists!")
            else:
                old, new = step.rename_alias.old_alias_name, step.rename_alias.new_alias_name
                changed[new] = changed.pop(old)
        self._aliases = changed
        return True

    def create_index(self, name: str, body: dict[str, Any]) -> None:
        models.CreateFieldIndex.model_validate(body)
        schema = self._configs[self.resolve(name)]["schema"]
        schema[body["field_name"]] = body["field_schema"]

    def delete_index(self, name: str, field: str) -> None:
        self._configs[self.resolve(name)]["schema"].pop(field, None)

    def upsert(self, name: str, body: dict[str, Any]) -> None:
        kind = models.PointsBatch if "batch" in body else models.PointsList
        asked: Any = kind.model_validate(body)
        points = asked.batch if "batch" in body else asked.points
        self._client.upsert(
            self.resolve(name), points, update_filter=asked.update_filter, update_mode=asked.update_mode
        )

    def set_payload(self, name: str, body: dict[str, Any]) -> None:
        asked = models.SetPayload.model_validate(body)
        selector = asked.points if asked.points is not None else asked.filter
        self._client.set_payload(self.resolve(name), asked.payload, selector, key=asked.key)

    def delete_points(self, name: str, body: dict[str, Any]) -> None:
        kind = models.PointIdsList if "points" in body else models.FilterSelector
        self._client.delete(self.resolve(name), kind.model_validate(body))  # type: ignore[arg-type]

    def retrieve(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        asked = models.PointRequest.model_validate(body)
        payload = True if asked.with_payload is None else asked.with_payload
        found = self._client.retrieve(self.resolve(name), asked.ids, payload, asked.with_vector or False)
        return [_record(record) for record in found]

    def scroll(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = models.ScrollRequest.model_validate(body)
        records, offset = self._client.scroll(
            self.resolve(name),
            scroll_filter=asked.filter,
            limit=asked.limit or 10,
            offset=asked.offset,
            with_payload=True if asked.with_payload is None else asked.with_payload,
            with_vectors=asked.with_vector or False,
        )
        return {"points": [_record(record) for record in records], "next_page_offset": offset}

    def count(self, name: str, body: dict[str, Any]) -> dict[str, int]:
        asked = models.CountRequest.model_validate(body)
        return {"count": int(self._client.count(self.resolve(name), asked.filter).count)}

    def query(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.query_batch(name, {"searches": [body]})[0]

    def query_batch(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        requests = [_without_parameters(r) for r in models.QueryRequestBatch.model_validate(body).searches]
        answers = self._client.query_batch_points(self.resolve(name), requests)
        return [
            {"points": [_record(p) | {"score": float(p.score), "version": 0} for p in answer.points]}
            for answer in answers
        ]

    def facet(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = models.FacetRequest.model_validate(body)
        collection = self.resolve(name)
        if asked.key not in self._configs[collection]["schema"]:
            raise RefusedError(400, f'Bad request: Index required but not found for "{asked.key}"')
        answer = self._client.facet(collection, asked.key, facet_filter=asked.filter, limit=asked.limit or 10)
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in answer.hits]}

    def create_snapshot(self, name: str) -> dict[str, Any]:
        collection = self.resolve(name)
        points, offset = [], None
        while True:
            page = self.scroll(collection, {"limit": 1000, "with_vector": True, "offset": offset})
            points += page["points"]
            if (offset := page["next_page_offset"]) is None:
                break
        data = gzip.compress(json.dumps({"config": self._configs[collection], "points": points}).encode(), mtime=0)
        kept = self._snapshots.setdefault(collection, {})
        snapshot = f"{collection}-1-{time.strftime('%Y-%m-%d-%H-%M-%S')}-{len(kept)}.snapshot"
        kept[snapshot] = data
        return _description(snapshot, data)

    def snapshots(self, name: str) -> list[dict[str, Any]]:
        return [_description(key, data) for key, data in self._snapshots.get(self.resolve(name), {}).items()]

    def snapshot(self, name: str, snapshot: str) -> bytes:
        try:
            return self._snapshots[self._aliases.get(name, name)][snapshot]
        except KeyError:
            raise RefusedError(404, f"Not found: Snapshot {snapshot} not found") from None

    def delete_snapshot(self, name: str, snapshot: str) -> bool:
        self.snapshot(name, snapshot)
        del self._snapshots[self._aliases.get(name, name)][snapshot]
        return True

    def recover(self, name: str, data: bytes, checksum: str | None = None) -> bool:
        """Replace a collection, or make it, from the bytes of a snapshot."""
        if checksum is not None and checksum != hashlib.sha256(data).hexdigest():
            raise RefusedError(400, f"Bad request: Snapshot checksum mismatch: expected {checksum}")
        try:
            saved = json.loads(gzip.decompress(data))
        except (OSError, EOFError, ValueError) as error:
            raise RefusedError(400, f"Bad request: Snapshot is damaged: {error}") from error
        collection = self._aliases.get(name, name)
        if collection in self._configs:
            self._client.delete_collection(collection)
        params = models.CollectionParams.model_validate(saved["config"]["params"])
        self._client.create_collection(
            collection, vectors_config=params.vectors or {}, sparse_vectors_config=params.sparse_vectors
        )
        self._configs[collection] = saved["config"]
        if saved["points"]:
            self.upsert(collection, {"points": saved["points"]})
        return True


def _given(body: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in (body.get(key) or {}).items() if value is not None}


def _without_parameters(request: Any) -> Any:
    """A query without search parameters, which the in-process engine warns of."""
    prefetch = request.prefetch
    if isinstance(prefetch, list):
        prefetch = [_without_parameters(item) for item in prefetch]
    elif prefetch is not None:
        prefetch = _without_parameters(prefetch)
    return request.model_copy(update={"params": None, "prefetch": prefetch})


def _record(record: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": record.id, "payload": record.payload}
    if record.vector is not None:
        vectors = record.vector if isinstance(record.vector, dict) else {"": record.vector}
        named = {
            name: vector.model_dump() if isinstance(vector, models.SparseVector) else vector
            for name, vector in vectors.items()
        }
        answer["vector"] = named.get("", named)
    return answer


def _description(name: str, data: bytes) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%S")
    return {"name": name, "creation_time": created, "size": len(data), "checksum": hashlib.sha256(data).hexdigest()}
