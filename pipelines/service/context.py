"""What is known of one request besides HTTP: its id, whose it is, and until when it must be answered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.service.config import Scope

_KEY = "retrieval.context"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Args:
        name: Name of the environment variable with the key; ``anonymous`` where no keys are configured.
        scopes: What it may do.
        tenant: The only tenant whose documents it sees and writes; ``None`` for all.
        read_only: Whether the service writes for nobody.
    """

    name: str
    scopes: frozenset[Scope]
    tenant: str | None = None
    read_only: bool = False


@dataclass(slots=True)
class RequestContext:
    """The state of one request.

    Args:
        request_id: Id given by the client or made here.
        deadline: Time of `time.monotonic` until which it must be answered.
        principal: Who asks; ``None`` on the paths that everybody may ask.
        route: Path with placeholders, for metrics; ``None`` until it is known.
        status: Status of the answer, 0 until it has begun.
        received: Bytes of the body so far.
        sent: Bytes of the answer so far.
        body_done: Whether the whole body was read.
        receive: Receives the body, and behind its end that the client has gone.
    """

    request_id: str
    deadline: float
    principal: Principal | None = None
    route: str | None = None
    status: int = 0
    received: int = 0
    sent: int = 0
    body_done: bool = False
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]] | None = None
    started: float = field(default_factory=time.perf_counter)

    def remaining(self) -> float:
        """Seconds until the deadline, negative behind it."""
        return self.deadline - time.monotonic()


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """The context that the door has put into the scope of a request."""
    context: RequestContext = scope[_KEY]
    return context


def put_context(scope: MutableMapping[str, Any], context: RequestContext) -> None:
    """Let `context_of` find the context."""
    scope[_KEY] = context
