"""Which web pages may call: those of the configuration, and without keys no others, not even by a trick with names."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from pipelines.service.config import ServiceConfig
from pipelines.service.errors import ServiceError


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Origins:
    """Refuses what a web page sends to a service without keys, behind the back of the person who looks at it.

    Without keys anybody who reaches the port may write, and a browser on this machine reaches it for any page. Browsers
    say where a request comes from and which host name it was made for; both are looked at.

    Args:
        config: Settings.
        checked: Whether to look at all.
    """

    def __init__(self, config: ServiceConfig, *, checked: bool) -> None:
        self._checked = checked
        self._origins = {origin.encode() for origin in config.cors_origins}
        self._any_host = config.insecure
        self._hosts = {config.host.lower(), *(host.lower() for host in config.allowed_hosts)}

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Look at the headers of a request.

        Raises:
            ServiceError: 403, a web page from elsewhere asks; 421, the request was made for another host.
        """
        if not self._checked:
            return
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins:
            raise ServiceError(403, "foreign_origin", "web pages may call only when service.cors_origins names them")
        if not self._any_host and not self._is_ours(headers.get(b"host", b"")):
            raise ServiceError(
                421, "foreign_host", "this service answers to the names of this machine and to service.allowed_hosts"
            )

    def _is_ours(self, host: bytes) -> bool:
        name = host.decode("latin-1").lower()
        bare = name if name.endswith("]") else name.rpartition(":")[0] or name
        return not name or bare.strip("[]") in self._hosts or is_loopback(bare)
