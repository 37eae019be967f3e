"""What went wrong with a request: whether it is worth another attempt, how long to wait, and what to tell."""

from __future__ import annotations

import json
import os
import random
import ssl
from collections.abc import Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from retrieval.config import ServerStoreConfig
from retrieval.errors import StoreError

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 20.0
FAILURES = (ApiException, QdrantException, grpc.RpcError, ValueError, RuntimeError)
"""What the client raises."""

# The server answers 408 when it ran out of its own time.
_PASSING_STATUS = {408, 429}
_PASSING_GRPC = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
}
_UNREACHABLE_GRPC = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_UNAUTHORISED_GRPC = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_BAD_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "SSL_ERROR_SSL", "Ssl handshake failed")


class RequestTooLargeError(StoreError):
    """The server takes no request of this size."""


class NotAppliedError(QdrantException):
    """The server has taken a write and has not carried it out within its time."""


def require_applied(result: models.UpdateResult) -> None:
    """Take a write for failed, which is sent again, where the server has stopped waiting for it.

    Raises:
        NotAppliedError: It has.
    """
    if result.status is models.UpdateStatus.WAIT_TIMEOUT:
        raise NotAppliedError(f"operation {result.operation_id} was taken and not carried out in time")


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if _is_certificate(error) or is_too_large(error):
        return False
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _PASSING_STATUS or (error.status_code or 0) >= 500
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) in _PASSING_GRPC
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    return isinstance(error, QdrantException)


def is_too_large(error: Exception) -> bool:
    """Whether the request exceeds what the server reads."""
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) is not grpc.StatusCode.UNAVAILABLE and "message length too large" in reason(error)
    return isinstance(error, UnexpectedResponse) and error.status_code == 413


def pause(error: Exception, attempt: int) -> float:
    """Seconds before the next attempt: what the server asks for, else doubling, with jitter.

    Args:
        error: Why the last one failed.
        attempt: Number of that attempt, from 0.
    """
    if isinstance(error, ResourceExhaustedResponse):
        return min(max(float(error.retry_after_s), 0.0), LONGEST_PAUSE_S)
    longest = min(FIRST_PAUSE_S * 2.0**attempt, LONGEST_PAUSE_S)
    # Half fixed, half random: clients that failed together do not come back together.
    return longest / 2 + random.uniform(0.0, longest / 2)


def explained(config: ServerStoreConfig, action: str, error: Exception) -> StoreError:
    """Our error for one of the client.

    Args:
        config: Of the connection.
        action: What was being done: ``search``.
        error: What the client raised.
    """
    url, key = config.url, config.api_key_env
    why = reason(error)
    if key is not None and (secret := os.environ.get(key)):
        # A server, or a proxy before it, may repeat what it was sent.
        why = why.replace(secret, f"${key}")
    if _is_certificate(error):
        remedy = (
            f"check the file that the environment variable {config.tls_ca_env} names"
            if config.tls_ca_env
            else "put the path of the CA's file into an environment variable and name that in store.tls_ca_env"
        )
        return StoreError(f"no trusted connection to Qdrant at {url} ({why}): {remedy}")
    if _is_unauthorised(error):
        remedy = (
            f"check the key in the environment variable {key}"
            if key
            else "put its API key into an environment variable and name that in store.api_key_env"
        )
        return StoreError(f"Qdrant at {url} refused {action} ({why}): {remedy}")
    if _is_unreachable(error):
        return StoreError(f"cannot reach Qdrant at {url} ({why}); is it running? docker compose up -d qdrant")
    message = f"{action} failed at {url}, collection {config.collection}: {why}"
    if is_too_large(error):
        return RequestTooLargeError(f"{message}; lower store.batch_size, or raise the limit of the server")
    if "Index required but not found" in why:
        message += "; name the field in store.payload_indexes, or turn off strict mode"
    return StoreError(message)


def reason(error: Exception) -> str:
    """Why, in the words of the server where it has said some."""
    if isinstance(error, UnexpectedResponse):
        return f"{error.status_code} {_server_message(error.content) or error.reason_phrase}".strip()
    if isinstance(error, ResponseHandlingException):
        return str(error.source) or type(error.source).__name__
    if isinstance(error, grpc.RpcError):
        details = getattr(error, "details", lambda: None)()
        return f"{_grpc_code(error)}: {details}" if details else repr(error)
    return str(error) or type(error).__name__


def _is_certificate(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return _is_unreachable(error) and any(sign in reason(error) for sign in _BAD_CERTIFICATE)
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        source = error.source if isinstance(error, ResponseHandlingException) else None
        error = source or error.__cause__ or error.__context__


def _is_unreachable(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) in _UNREACHABLE_GRPC
    return isinstance(error, ResponseHandlingException) and isinstance(error.source, httpx.TransportError)


def _is_unauthorised(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) in _UNAUTHORISED_GRPC
    return isinstance(error, UnexpectedResponse) and error.status_code in {401, 403}


def _server_message(content: bytes) -> str:
    try:
        status: Any = json.loads(content)["status"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:200].decode("utf-8", "replace")
    return str(status.get("error", status) if isinstance(status, dict) else status)


def _grpc_code(error: grpc.RpcError) -> Any:
    return getattr(error, "code", lambda: None)()
