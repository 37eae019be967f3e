"""Tenants: documents that only the keys of the same tenant see."""

from __future__ import annotations

from typing import Any

from retrieval.config import Config
from retrieval.datatypes import Filter
from retrieval.errors import ConfigError

_DEFAULT_FIELD = "metadata.tenant"


def tenant_field(config: Config) -> str:
    """Payload path of the field that tells tenants apart; it is part of the metadata of a document.

    Args:
        config: Settings of the pipeline.

    Raises:
        ConfigError: ``store.tenant_field`` is not part of it.
    """
    field: str = getattr(config.store, "tenant_field", None) or _DEFAULT_FIELD
    section, _, rest = field.partition(".")
    if section != "metadata" or not all(part.isidentifier() for part in rest.split(".")):
        raise ConfigError(f"store.tenant_field is a field of the metadata, such as {_DEFAULT_FIELD}, not {field!r}")
    return field


def within_tenant(where: Filter | None, field: str, tenant: str | None) -> Filter | None:
    """A filter that also keeps to the documents of a tenant.

    Args:
        where: What the client asks for; ``None`` for everything.
        field: Payload path of the tenant.
        tenant: The tenant; ``None`` for all.
    """
    if tenant is None:
        return where
    own: dict[str, Any] = {"key": field, "match": {"value": tenant}}
    return {"must": [own] if where is None else [own, dict(where)]}
