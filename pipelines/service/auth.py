"""Bearer keys: who asks, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from pipelines.service.config import KeyConfig, Scope
from pipelines.service.context import Principal, RequestContext, context_of
from pipelines.service.errors import ServiceError
from retrieval.errors import ConfigError

ANONYMOUS = Principal("anonymous", frozenset(("read", "write", "admin")))
MIN_KEY_CHARACTERS = 16

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="One of the keys of the service.")


class Keys:
    """The keys of the service, kept as digests.

    Args:
        configs: Names of environment variables and what their keys may do; none lets everybody do everything.
        environment: Where the keys stand.
        read_only: Nobody may write, whatever a key says.

    Raises:
        ConfigError: A variable is not set, a key is short or not printable ASCII, or two keys are the same.
    """

    def __init__(
        self, configs: Iterable[KeyConfig], environment: Mapping[str, str] = os.environ, *, read_only: bool = False
    ) -> None:
        self._anonymous = _reading(ANONYMOUS) if read_only else ANONYMOUS
        self._entries: list[tuple[bytes, Principal]] = []
        for config in configs:
            key = environment.get(config.env, "")
            if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
                state = "is not set" if not key else "holds no usable key"
                raise ConfigError(
                    f"service.keys: the environment variable {config.env} {state}; a key has at least "
                    f"{MIN_KEY_CHARACTERS} printable ASCII characters without blanks ('openssl rand -hex 32' makes one)"
                )
            digest = hashlib.sha256(key.encode()).digest()
            if any(hmac.compare_digest(digest, other) for other, _ in self._entries):
                raise ConfigError(f"service.keys: {config.env} holds the same key as another variable")
            principal = Principal(config.env, frozenset(config.scopes), config.tenant)
            self._entries.append((digest, _reading(principal) if read_only else principal))

    def __len__(self) -> int:
        return len(self._entries)

    def authenticate(self, authorization: bytes | None) -> Principal:
        """The principal of an ``Authorization`` header; takes the same time for every key.

        Args:
            authorization: Value of the header, ``None`` when there is none.

        Raises:
            ServiceError: 401, there is no key or it is wrong.
        """
        if not self._entries:
            return self._anonymous
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise _unauthorized("a key is needed: Authorization: Bearer KEY", 'Bearer realm="retrieval"')
        digest = hashlib.sha256(key.strip()).digest()
        found: Principal | None = None
        for known, principal in self._entries:
            if hmac.compare_digest(digest, known):
                found = principal
        if found is None:
            raise _unauthorized("the key is not known", 'Bearer realm="retrieval", error="invalid_token"')
        return found


def authorize(context: RequestContext, scope: Scope) -> Principal:
    """The principal of a request, when it may do what it asks for.

    Args:
        context: Of the request.
        scope: What is needed.

    Raises:
        ServiceError: 403, the key lacks the scope, or the service writes for nobody.
    """
    principal = context.principal
    if principal is None:
        raise _unauthorized("a key is needed: Authorization: Bearer KEY", 'Bearer realm="retrieval"')
    if scope == "write" and principal.read_only:
        raise ServiceError(
            403, "read_only", "this service only reads its index; send changes to the process that writes to it"
        )
    if scope not in principal.scopes:
        raise ServiceError(
            403,
            "scope_missing",
            f"this key may not {scope}; its scopes: {', '.join(sorted(principal.scopes))}",
            headers={"WWW-Authenticate": f'Bearer realm="retrieval", error="insufficient_scope", scope="{scope}"'},
        )
    return principal


def _reading(principal: Principal) -> Principal:
    return replace(principal, scopes=principal.scopes - {"write"}, read_only=True)


def requires(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency that gives the principal and refuses keys without the scope."""

    async def dependency(request: Request, _key: Annotated[object, Security(_bearer)]) -> Principal:
        return authorize(context_of(request.scope), scope)

    return dependency


def _unauthorized(detail: str, challenge: str) -> ServiceError:
    return ServiceError(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
