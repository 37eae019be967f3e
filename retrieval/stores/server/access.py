"""The way to a server from the configuration: URL, key and certificates, whose values stay in the environment."""

from __future__ import annotations

import logging
import os
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient

from retrieval.config import ServerStoreConfig
from retrieval.errors import ConfigError

_KEPT_CONNECTIONS = 20
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files, as the environment names them.

    Args:
        ca: Authorities to trust; ``None`` for those of the system.
        cert: Certificate that the server asks its clients for; ``None`` for none.
        key: Its private key; ``None`` where it is in the file of the certificate.
    """

    ca: Path | None
    cert: Path | None
    key: Path | None

    def context(self) -> ssl.SSLContext:
        """For HTTPS.

        Raises:
            ConfigError: A file is not PEM, or the key is not that of the certificate.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (ssl.SSLError, OSError) as error:
            named = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)
            raise ConfigError(f"the certificates in {named} cannot be used: {error}") from error
        return context

    def grpc_options(self) -> dict[str, bytes]:
        """For gRPC over TLS, as the client takes them."""
        key = self.key or self.cert
        files = {"root_certificates": self.ca, "certificate_chain": self.cert, "private_key": key}
        return {name: path.read_bytes() for name, path in files.items() if path is not None}


def open_client(config: ServerStoreConfig) -> QdrantClient:
    """The client that the configuration describes; it has not said a word to the server yet.

    Raises:
        ConfigError: The URL cannot be used, or an environment variable or file that the configuration names is missing.
    """
    key, certificates = api_key(config), _certificates(config)
    try:
        with warnings.catch_warnings():
            # The client warns of a key without encryption on loopback as well; `api_key` says when it matters.
            warnings.simplefilter("ignore", UserWarning)
            return QdrantClient(
                url=config.url,
                api_key=key,
                prefer_grpc=config.prefer_grpc,
                grpc_port=config.grpc_port,
                grpc_options=dict(certificates.grpc_options()) if certificates else None,
                timeout=config.timeout_s,
                check_compatibility=False,
                verify=certificates.context() if certificates else True,
                # To this machine the client would open a connection for every request and run out of ports.
                limits=httpx.Limits(max_keepalive_connections=_KEPT_CONNECTIONS),
            )
    except ValueError as error:
        raise ConfigError(f"store.url {config.url!r} cannot be used: {error}") from error


def open_http(config: ServerStoreConfig, *, read_timeout_s: float) -> httpx.Client:
    """Plain HTTP to the same server, for files that the client would read into memory.

    Args:
        config: URL, key and certificates.
        read_timeout_s: How long the server may think before it answers.

    Raises:
        ConfigError: As `open_client`.
    """
    key, certificates = api_key(config), _certificates(config)
    parts = urlsplit(config.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"store.url {config.url!r} cannot be used: it is not http:// or https:// with a host")
    base = config.url.rstrip("/") if parts.port else parts._replace(netloc=f"{parts.netloc}:6333").geturl().rstrip("/")
    return httpx.Client(
        base_url=base,
        headers={"api-key": key} if key else {},
        verify=certificates.context() if certificates else True,
        timeout=httpx.Timeout(config.timeout_s, read=read_timeout_s, write=read_timeout_s),
    )


def api_key(config: ServerStoreConfig) -> str | None:
    """The key, ``None`` where the configuration names none.

    Raises:
        ConfigError: The environment variable is not set.
    """
    if config.api_key_env is None:
        return None
    key = _variable(config.api_key_env, "api_key_env")
    parts = urlsplit(config.url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _logger.warning("the API key travels unencrypted to %s; use https", config.url)
    return key


def _certificates(config: ServerStoreConfig) -> Certificates | None:
    names = {"tls_ca_env": config.tls_ca_env, "tls_cert_env": config.tls_cert_env, "tls_key_env": config.tls_key_env}
    if not any(names.values()):
        return None
    if urlsplit(config.url).scheme != "https":
        used = ", ".join(f"store.{setting}" for setting, name in names.items() if name)
        raise ConfigError(f"{used} is for https, and store.url is {config.url}")
    files = [None if name is None else _file(name, setting) for setting, name in names.items()]
    return Certificates(*files)


def _file(name: str, setting: str) -> Path:
    path = Path(_variable(name, setting))
    if not path.is_file():
        raise ConfigError(f"the environment variable {name} (store.{setting}) names {path}, which is not a file")
    return path


def _variable(name: str, setting: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"store.{setting} names the environment variable {name}, which is not set")
    return value
