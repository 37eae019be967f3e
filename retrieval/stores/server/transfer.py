"""Plain requests and large files over HTTP, for what the client cannot do or would read into memory."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Self

import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from retrieval.config import ServerStoreConfig
from retrieval.errors import StoreCorruptError, StoreError, StoreFullError
from retrieval.stores.server.access import open_http
from retrieval.stores.server.connection import patiently

LONGEST_WAIT_S = 4 * 3600.0
"""How long the server may work on a snapshot before it answers."""
_BLOCK = 2**20


class Transfer:
    """Requests to the server of a configuration; use with ``with``.

    Args:
        config: The server.

    Raises:
        ConfigError: As `retrieval.stores.server.access.open_http`.
    """

    def __init__(self, config: ServerStoreConfig) -> None:
        self._config = config
        self._http = open_http(config, read_timeout_s=LONGEST_WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def url(self, path: str) -> str:
        """The whole URL of a path."""
        return str(self._http.base_url).rstrip("/") + path

    def ask(self, action: str, method: str, path: str, *, repeat: bool = True, **request: Any) -> Any:
        """Send a request and return its ``result``.

        Args:
            action: What is being done, for messages.
            method: HTTP method.
            path: Path on the server, quoted.
            repeat: Whether it is safe to send twice.
            request: ``params``, ``json`` and the like, as httpx takes them.

        Raises:
            StoreError: The server cannot be reached or refuses.
        """

        def send() -> Any:
            try:
                response = self._http.request(method, path, **request)
            except httpx.HTTPError as error:
                raise ResponseHandlingException(error) from error
            _require_success(response)
            try:
                return response.json()["result"]
            except (ValueError, KeyError, TypeError) as error:
                raise ResponseHandlingException(
                    ValueError(f"not an answer of Qdrant: {response.text[:80]!r}")
                ) from error

        return patiently(self._config, action, send, repeat=repeat)

    def download(
        self,
        path: str,
        target: Path,
        *,
        size: int,
        checksum: str | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """Fetch a file; an interrupted transfer goes on where it was.

        Args:
            path: Path on the server, quoted.
            target: The file, put in place when it is complete.
            size: Bytes that will come.
            checksum: SHA-256 in hexadecimal; ``None`` checks the size only.
            on_progress: Called with the bytes that are there, and ``size``.

        Raises:
            StoreError: The server refuses, or the file cannot be written.
            StoreCorruptError: Another size or checksum came.
            StoreFullError: The disk is full.
        """
        partial = target.with_name(f"{target.name}.part")
        try:
            with partial.open("wb") as file:
                digest = self._fetch(path, file, size, on_progress)
                file.flush()
                os.fsync(file.fileno())
            came = partial.stat().st_size
            if came != size or (checksum is not None and digest != checksum.lower()):
                raise StoreCorruptError(
                    f"{came} bytes with SHA-256 {digest} came of {path}, and the server has announced {size} with "
                    f"{checksum}; try again"
                )
            partial.replace(target)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StoreFullError(f"{target} needs {size:,} bytes, and the disk is full") from error
            raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)

    def upload(
        self,
        path: str,
        source: Path,
        *,
        params: dict[str, str],
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """Send a file as the form field ``snapshot``, without reading it into memory.

        Args:
            path: Path on the server, quoted.
            source: The file.
            params: Parameters of the request.
            on_progress: Called with the bytes that were sent, and of how many.

        Raises:
            StoreError: The file cannot be read, or the server cannot be reached or refuses.
        """
        try:
            with source.open("rb") as file:
                form = {"snapshot": (source.name, _Watched(file, on_progress), "application/octet-stream")}
                self.ask("upload snapshot", "POST", path, repeat=False, params=params, files=form)
        except OSError as error:
            raise StoreError(f"cannot read {source}: {error.strerror or error}") from error

    def _fetch(self, path: str, file: BinaryIO, size: int, on_progress: Callable[[int, int], None] | None) -> str:
        """Write what comes to a file and return its SHA-256."""
        digest = hashlib.sha256()

        def fetch() -> None:
            nonlocal digest
            headers = {"Accept-Encoding": "identity"}
            if file.tell():
                headers["Range"] = f"bytes={file.tell()}-"
            try:
                with self._http.stream("GET", path, headers=headers) as response:
                    if not response.is_success:
                        response.read()
                    _require_success(response)
                    if response.status_code != httpx.codes.PARTIAL_CONTENT and file.tell():
                        file.seek(0)
                        file.truncate()
                        digest = hashlib.sha256()
                    for block in response.iter_bytes(_BLOCK):
                        file.write(block)
                        digest.update(block)
                        if on_progress is not None:
                            on_progress(file.tell(), size)
            except httpx.HTTPError as error:
                raise ResponseHandlingException(error) from error

        patiently(self._config, "download snapshot", fetch)
        return digest.hexdigest()


class _Watched:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, on_progress: Callable[[int, int], None] | None) -> None:
        self._file = file
        self._on_progress = on_progress
        self._size = os.fstat(file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        if self._on_progress is not None and block:
            self._on_progress(self._file.tell(), self._size)
        return block


def _require_success(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS and response.headers.get("Retry-After", "").isdigit():
        raise ResourceExhaustedResponse(response.text[:200], int(response.headers["Retry-After"]))
    if not response.is_success:
        raise UnexpectedResponse.for_response(response)
