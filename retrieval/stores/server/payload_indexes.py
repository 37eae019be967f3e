"""Payload indexes of a collection: which ones it has, made when missing, and the facets that need them."""

from __future__ import annotations

import logging
from typing import Any

from qdrant_client import models

from retrieval.config import ServerStoreConfig
from retrieval.stores.filters import parse_path
from retrieval.stores.matching import scalars_at
from retrieval.stores.server.collection import Collection
from retrieval.stores.server.connection import ADMIN_TIMEOUT_S, Connection
from retrieval.stores.server.failures import require_applied
from retrieval.stores.ties import MARGIN, close_tie, most_frequent

BUILT_IN = ("document", "document_id", "source")
"""Fields that ingest and deletion filter by; keywords."""
Schema = models.PayloadSchemaType | models.KeywordIndexParams

_SAMPLE = 256
_FACET_KINDS = {
    str: models.PayloadSchemaType.KEYWORD,
    int: models.PayloadSchemaType.INTEGER,
    bool: models.PayloadSchemaType.BOOL,
}
_logger = logging.getLogger(__name__)


def wanted_indexes(config: ServerStoreConfig) -> dict[str, Schema]:
    """The indexes of a collection, by field: the built-in ones, that of tenants, and those of the configuration.

    A tenant index lets the server keep the points of a tenant together and link them in the graph.
    """
    wanted: dict[str, Schema] = dict.fromkeys(BUILT_IN, models.PayloadSchemaType.KEYWORD)
    for index in config.payload_indexes:
        wanted[index.field] = models.PayloadSchemaType(index.type)
    if config.tenant_field is not None:
        wanted[config.tenant_field] = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    return wanted


class PayloadIndexes:
    """The payload indexes of a collection.

    Args:
        connection: To the server.
        collection: The collection.
    """

    def __init__(self, connection: Connection, collection: Collection) -> None:
        self._connection = connection
        self._collection = collection

    def ensure(self, wanted: dict[str, Schema]) -> None:
        """Make those that are missing; one of another type stays as it is, with a warning.

        Raises:
            StoreError: The server refused to make one.
        """
        if self._connection.in_process:
            return
        there = self._collection.info().payload_schema
        for field, schema in wanted.items():
            found = there.get(field)
            if found is None:
                self._create(field, schema)
            elif not _serves(found, schema):
                _logger.warning(
                    "the index of field %s in %s is of type %s, not %s as configured; delete it to get another",
                    field,
                    self._collection.name,
                    found.data_type.value,
                    _named(schema),
                )

    def cover(self, key: str) -> bool:
        """Whether an index knows every value of a field, made now if need be."""
        if self._connection.in_process:
            return True
        filled = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
        schema = self._collection.info().payload_schema
        if key not in schema:
            path = parse_path(key)
            records, _ = self._collection.scroll(
                scroll_filter=filled, limit=_SAMPLE, with_payload=True, with_vectors=False
            )
            kinds = {type(value) for record in records for value in scalars_at(path, record.payload or {})}
            if len(kinds) != 1 or (kind := _FACET_KINDS.get(kinds.pop())) is None:
                return False
            self._create(key, kind)
            schema = self._collection.info().payload_schema
        return key in schema and schema[key].points == self._collection.count(filled)

    def facet(self, key: str, limit: int, condition: models.Filter | None) -> list[tuple[Any, int]]:
        """Most frequent values of an indexed field with their counts, most frequent first."""
        name = self._collection.name

        def fetch(window: int) -> list[models.FacetValueHit]:
            return self._connection.call(
                "facet", lambda c: c.facet(name, key, facet_filter=condition, limit=window, exact=True).hits
            )

        hits = close_tie(fetch, fetch(limit + MARGIN), limit, lambda hit: float(hit.count))
        return most_frequent(((hit.value, hit.count) for hit in hits), limit)

    def _create(self, key: str, schema: Schema) -> None:
        name = self._collection.name
        self._connection.call(
            "create index",
            lambda c: require_applied(c.create_payload_index(name, key, schema, wait=True, timeout=ADMIN_TIMEOUT_S)),
        )


def _serves(found: models.PayloadIndexInfo, schema: Schema) -> bool:
    if isinstance(schema, models.KeywordIndexParams):
        return isinstance(found.params, models.KeywordIndexParams) and found.params.is_tenant is True
    return found.data_type is schema


def _named(schema: Schema) -> str:
    return "keyword with is_tenant" if isinstance(schema, models.KeywordIndexParams) else schema.value
