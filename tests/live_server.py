"""The real Qdrant server that tests may use: ``QDRANT_URL``, with ``QDRANT_API_KEY`` and ``QDRANT_GRPC=1`` if need be.

Every test makes collections under a name of its own and erases all generations of it, also when it fails.
"""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from typing import Any

from retrieval.config import Config, ServerStoreConfig, parse_config
from retrieval.stores.server.connection import Connection
from retrieval.stores.server.generations import erase_all

NO_SERVER = "QDRANT_URL is not set; start one with: docker compose up -d qdrant"
HAS_SERVER = "QDRANT_URL" in os.environ
LIVE_KINDS = ["server-at-url"] if HAS_SERVER else []
if HAS_SERVER and os.environ.get("QDRANT_GRPC") == "1":
    LIVE_KINDS.append("server-at-url-grpc")


def live_config(kind: str, stack: ExitStack, **store: Any) -> Config:
    """A collection on the real server that is gone when ``stack`` is left.

    Args:
        kind: One of `LIVE_KINDS`.
        stack: Of the test.
        store: Further settings.
    """
    settings: dict[str, Any] = {
        "kind": "server",
        "url": os.environ["QDRANT_URL"],
        "api_key_env": "QDRANT_API_KEY" if os.environ.get("QDRANT_API_KEY") else None,
        "prefer_grpc": kind.endswith("-grpc"),
        "grpc_port": int(os.environ.get("QDRANT_GRPC_PORT", "6334")),
        "collection": f"test-{uuid.uuid4().hex}",
    }
    config = parse_config({"store": {**settings, **store}})
    assert isinstance(config.store, ServerStoreConfig)
    stack.callback(_erase, config.store)
    return config


def _erase(store: ServerStoreConfig) -> None:
    connection = Connection(store)
    try:
        erase_all(connection, store.collection)
    finally:
        connection.close()
