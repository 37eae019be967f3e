"""Which web pages may call: our own and those of the configuration, and no others, not even by a trick with names."""

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
        if origin is not None and origin not in self._origins and not self._is_own_page(origin, headers):
            raise ServiceError(
                403,
                "foreign_origin",
                "web pages may call only when service.cors_origins names them, or from this service when "
                "service.allowed_hosts names its host",
            )
        if not self._any_host and not self._is_ours(headers.get(b"host", b"")):
            raise ServiceError(
                421, "foreign_host", "this service answers to the names of this machine and to service.allowed_hosts"
            )

    def _is_own_page(self, origin: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the page came from here: its host is the one asked, and no name that somebody else may own.

        A name that somebody lets point to this machine would be its own origin too, so that names have to be known;
        an address cannot be taken over like that.
        """
        scheme, _, place = origin.lower().partition(b"://")
        host = headers.get(b"host", b"").lower()
        return scheme in {b"http", b"https"} and bool(host) and place == host and self._is_known(host)

    def _is_ours(self, host: bytes) -> bool:
        return not host or self._is_named(_bare(host))

    def _is_known(self, host: bytes) -> bool:
        return self._is_named(_bare(host)) or (self._any_host and _is_address(_bare(host)))

    def _is_named(self, name: str) -> bool:
        return name.strip("[]") in self._hosts or is_loopback(name)


def _bare(host: bytes) -> str:
    """A host header without the port."""
    name = host.decode("latin-1").lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
