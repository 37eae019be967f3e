"""The socket that a server listens at, and its address in words."""

from __future__ import annotations

import socket

from retrieval.errors import ConfigError


def bind(host: str, port: int, *, named: str, backlog: int) -> socket.socket:
    """The listening socket, not blocking; nobody is answered before something serves it.

    Args:
        host: Address or name of this machine; the brackets around an IPv6 address may be there.
        port: 0 takes a free one.
        named: What the user calls the host, for messages: ``service.host``.
        backlog: Connections that may wait to be taken.

    Raises:
        ConfigError: The host is no address of this machine.
        OSError: The address is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"{named} {host!r} is no address or name of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host} port {port}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listening socket can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
