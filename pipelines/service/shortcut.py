"""Short requests that are in order, answered by the protocol as soon as it has read them.

A task, an ASGI cycle and the messages between them cost a short request for embeddings more than its vectors. Whatever
is not plainly in order goes the ordinary way: nothing is refused here, so that every refusal is made in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from pipelines.service.auth import authorize
from pipelines.service.context import RequestContext
from pipelines.service.core import Service
from pipelines.service.door import SECURITY_HEADERS, Door, request_id_of
from pipelines.service.guarded import GuardedProtocol
from pipelines.service.origins import Origins
from pipelines.tracing import current_tracer

Headers = Iterable[tuple[bytes, bytes]]
AtOnce = Callable[[Service, bytes], bytes | None]
"""Makes an answer in JSON of the body of a request, or ``None`` when that would take long; may raise."""

_SECURITY = b"".join(b"%s: %s\r\n" % header for header in SECURITY_HEADERS)


class Shortcut:
    """One path whose answers to short requests need no waiting.

    Args:
        service: What requests share.
        door: Counts and logs the requests that take it.
        path: Path of the requests, which are POST and need the scope ``read``.
        answer: Makes the answers.
    """

    def __init__(self, service: Service, door: Door, path: str, answer: AtOnce) -> None:
        self.path = path.encode()
        self._service = service
        self._door = door
        self._route = path
        self._answer = answer
        self._origins = Origins(service.config, checked=not len(service.keys))

    def take(self, headers: list[tuple[bytes, bytes]], body: bytes, client: Any, sent: Headers) -> bytes | None:
        """The whole response, or ``None`` for a request that has to go the ordinary way.

        Args:
            headers: Of the request, names in lower case.
            body: Of the request, complete.
            client: Address and port of the client.
            sent: Headers that the server sends with every response.
        """
        service = self._service
        found = dict(reversed(headers))
        if service.draining or b"origin" in found:
            return None
        context = RequestContext(request_id_of(found), service.new_deadline())
        try:
            self._origins.check(found)
            context.principal = service.keys.authenticate(found.get(b"authorization"))
            authorize(context, "read")
            content = self._answer(service, body)
        except Exception:  # the ordinary way comes to the same and says it
            return None
        if content is None:
            return None
        context.status, context.received, context.sent = 200, len(body), len(content)
        self._door.account("POST", self._route, context, client)
        every = b"".join([b"%s: %s\r\n" % header for header in sent])
        return (
            b"HTTP/1.1 200 OK\r\n%scontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n%s\r\n%s"
            % (
                every,
                len(content),
                context.request_id.encode(),
                _SECURITY,
                content,
            )
        )


class ShortcutProtocol(GuardedProtocol):
    """Holds a request of the shortcut back until it is complete, and then answers it or lets it go the ordinary way.

    Only what comes in one piece is held: who sends slowly is waited for, and given up, where all are.
    """

    shortcut: Shortcut

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: list[bytes] | None = None
        self._traced = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See whether requests are traced, which the shortcut would not be."""
        super().connection_made(transport)
        self._traced = current_tracer() is not None

    def data_received(self, data: bytes) -> None:
        """Read, and let go what is not complete."""
        super().data_received(data)
        if self._held is not None:
            if self.transport.is_closing():
                self._held = None
            else:
                self._go_on(self._let_go())

    def on_headers_complete(self) -> None:
        """Hold the request, where it may be answered at once."""
        if self.url == self.shortcut.path and self._may_be_answered_at_once():
            self.headers_came()  # what follows is body and must not count as headers
            self._held = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hold the body of a request that is held."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Answer a request that is held, or let it go the ordinary way."""
        if self._held is None:
            super().on_message_complete()
            return
        body = self._let_go()
        response = self.shortcut.take(self.headers, body, self.client, self.server_state.default_headers)
        if response is None:
            self._go_on(body)
            super().on_message_complete()
        else:
            self.transport.write(response)
            self.on_response_complete()

    def _may_be_answered_at_once(self) -> bool:
        return (
            not self._traced
            and (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _let_go(self) -> bytes:
        assert self._held is not None
        body, self._held = b"".join(self._held), None
        return body

    def _go_on(self, body: bytes) -> None:
        super().on_headers_complete()
        if body:
            super().on_body(body)
