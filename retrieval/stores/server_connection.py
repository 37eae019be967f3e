"""A connection to a Qdrant server: opened from the configuration, patient with passing failures, clear about others."""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from retrieval.config import ServerStoreConfig
from retrieval.errors import ConfigError, StoreError

R = TypeVar("R")
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 20.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PASSING_GRPC = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
}
_UNAUTHORISED_GRPC = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_sleep = time.sleep
_logger = logging.getLogger(__name__)


class Connection:
    """Calls a client, again where that can help, and turns its errors into ours.

    Repeated: no connection, timeouts, 429 (after the pause that the server asks for), 5xx. Pauses double from
    `FIRST_PAUSE_S` to `LONGEST_PAUSE_S` with jitter. Never repeated: any other 4xx. Every call must be safe to repeat.

    Args:
        config: URL, key, timeout and number of retries.
        client: A client to use; ``None`` makes one. A client that was handed over is not closed.

    Raises:
        ConfigError: The environment variable of the key is not set, or the URL is none.
    """

    def __init__(self, config: ServerStoreConfig, client: QdrantClient | None = None) -> None:
        self._config = config
        self._owned = client is None
        self._client: QdrantClient | None = _open(config) if client is None else client
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
            StoreError: Closed, unreachable, unauthorised, or the server refused or failed.
        """
        if self._client is None:
            raise StoreError(f"the store at {self._config.url} is closed")
        for attempt in range(self._config.retries + 1):
            try:
                return use(self._client)
            except (ApiException, QdrantException, grpc.RpcError, ValueError, RuntimeError) as error:
                if isinstance(error, StoreError):
                    raise
                if attempt == self._config.retries or not _is_passing(error):
                    raise self._explained(action, error) from error
                pause = _pause(error, attempt)
                _logger.info("%s failed (%s); again in %.1f s", action, _reason(error), pause)
                _sleep(pause)
        raise AssertionError("unreachable")

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

    def _explained(self, action: str, error: Exception) -> StoreError:
        url, key = self._config.url, self._config.api_key_env
        if _is_unauthorised(error):
            remedy = (
                f"check the key in the environment variable {key}"
                if key
                else "put its API key into an environment variable and name that in store.api_key_env"
            )
            return StoreError(f"Qdrant at {url} refused {action} ({_reason(error)}): {remedy}")
        if _is_unreachable(error):
            return StoreError(
                f"cannot reach Qdrant at {url} ({_reason(error)}); is it running? docker compose up -d qdrant"
            )
        return StoreError(f"{action} failed at {url}, collection {self._config.collection}: {_reason(error)}")


def _open(config: ServerStoreConfig) -> QdrantClient:
    key = None
    if config.api_key_env is not None:
        key = os.environ.get(config.api_key_env)
        if not key:
            raise ConfigError(
                f"store.api_key_env names the environment variable {config.api_key_env}, which is not set"
            )
        parts = urlsplit(config.url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            _logger.warning("the API key travels unencrypted to %s; use https", config.url)
    try:
        with warnings.catch_warnings():
            # The client warns of a key without encryption on loopback as well; the line above says when it matters.
            warnings.simplefilter("ignore", UserWarning)
            return QdrantClient(
                url=config.url,
                api_key=key,
                prefer_grpc=config.prefer_grpc,
                grpc_port=config.grpc_port,
                timeout=config.timeout_s,
                check_compatibility=False,
            )
    except ValueError as error:
        raise ConfigError(f"store.url {config.url!r} cannot be used: {error}") from error


def _is_passing(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 429 or (error.status_code or 0) >= 500
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) in _PASSING_GRPC
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    return isinstance(error, QdrantException)


def _is_unreachable(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return isinstance(error, ResponseHandlingException) and isinstance(error.source, httpx.TransportError)


def _is_unauthorised(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) in _UNAUTHORISED_GRPC
    return isinstance(error, UnexpectedResponse) and error.status_code in {401, 403}


def _pause(error: Exception, attempt: int) -> float:
    if isinstance(error, ResourceExhaustedResponse):
        return min(max(float(error.retry_after_s), 0.0), LONGEST_PAUSE_S)
    longest = min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)
    # Half fixed, half random: clients that failed together do not come back together.
    return longest / 2 + random.uniform(0.0, longest / 2)


def _reason(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        return f"{error.status_code} {_server_message(error.content) or error.reason_phrase}".strip()
    if isinstance(error, ResponseHandlingException):
        return str(error.source) or type(error.source).__name__
    if isinstance(error, grpc.RpcError):
        details = getattr(error, "details", lambda: None)()
        return f"{_grpc_code(error)}: {details}" if details else repr(error)
    return str(error) or type(error).__name__


def _server_message(content: bytes) -> str:
    try:
        status: Any = json.loads(content)["status"]
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")
    return str(status.get("error", status) if isinstance(status, dict) else status)


def _grpc_code(error: grpc.RpcError) -> Any:
    return getattr(error, "code", lambda: None)()
