"""A connection to a Qdrant server: opened from the configuration, patient with passing failures, clear about others."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from qdrant_client import QdrantClient

from retrieval.config import ServerStoreConfig
from retrieval.errors import StoreError
from retrieval.stores.server.access import open_client
from retrieval.stores.server.failures import FAILURES, explained, is_passing, pause, reason

R = TypeVar("R")
ADMIN_TIMEOUT_S = 600
"""Seconds that a request may take that builds, moves or erases a whole collection."""
_sleep = time.sleep
_logger = logging.getLogger(__name__)


class Connection:
    """Calls a client, again where that can help, and turns its errors into ours.

    Repeated: no connection, timeouts, 408, 429 (after the pause that the server asks for), 5xx. Pauses double from
    `failures.FIRST_PAUSE_S` to `failures.LONGEST_PAUSE_S` with jitter. Never repeated: any other 4xx, and a certificate
    that is not trusted. Every call must be safe to repeat.

    Args:
        config: URL, key, certificates, timeout and number of retries.
        client: A client to use; ``None`` makes one. A client that was handed over is not closed.

    Raises:
        ConfigError: An environment variable or file that the configuration names is missing, or the URL is none.
    """

    def __init__(self, config: ServerStoreConfig, client: QdrantClient | None = None) -> None:
        self._config = config
        self._owned = client is None
        self._client: QdrantClient | None = open_client(config) if client is None else client
        self._owners = [self]

    @property
    def in_process(self) -> bool:
        """Whether the client is the in-process one for tests, which has neither indexes nor search parameters."""
        options = {} if self._client is None else self._client.init_options
        return options.get("location") == ":memory:" or options.get("path") is not None

    def call(self, action: str, use: Callable[[QdrantClient], R]) -> R:
        """Run ``use`` on the client.

        Args:
            action: What is being done, for messages: ``search``.
            use: Gets the client; may run several times.

        Raises:
            StoreError: Closed, unreachable, not trusted, unauthorised, or the server refused or failed.
        """
        client = self._client
        if client is None:
            raise StoreError(f"the store at {self._config.url} is closed")
        return patiently(self._config, action, lambda: use(client))

    def shared(self) -> Connection:
        """A connection over the same client, which closes when all of them have been closed."""
        other = copy.copy(self)
        self._owners.append(other)
        return other

    def close(self) -> None:
        """Close this connection, and the client if it is ours and nobody else uses it; closing twice is fine."""
        client, self._client = self._client, None
        if client is None:
            return
        self._owners[:] = [owner for owner in self._owners if owner is not self]
        if self._owned and not self._owners:
            client.close()


def patiently(config: ServerStoreConfig, action: str, run: Callable[[], R], *, repeat: bool = True) -> R:
    """Run a request, again where that can help.

    Args:
        config: Of the connection.
        action: What is being done, for messages.
        run: Sends the request and raises what the client raises.
        repeat: Whether the request is safe to repeat.

    Raises:
        StoreError: As `Connection.call`.
    """
    retries = config.retries if repeat else 0
    for attempt in range(retries + 1):
        try:
            return run()
        except FAILURES as error:
            if isinstance(error, StoreError):
                raise
            if attempt == retries or not is_passing(error):
                raise explained(config, action, error) from error
            seconds = pause(error, attempt)
            _logger.info("%s failed (%s); again in %.1f s", action, reason(error), seconds)
            _sleep(seconds)
    raise AssertionError("unreachable")
