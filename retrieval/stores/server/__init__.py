"""A Qdrant server or cluster as the store."""

from __future__ import annotations

from retrieval.stores.server.store import ServerStore

__all__ = ["ServerStore"]
