"""Bytes of a file, unpacked, limited and decoded."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from charset_normalizer import from_bytes

from retrieval.documents.source import Source
from retrieval.errors import DocumentError

READ_ERRORS = (OSError, EOFError, zlib.error, UnicodeError)
"""What reading raises for a missing, unreadable, truncated or corrupt file, and what some codecs raise for any."""

_SAMPLE_BYTES = 64 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_DECLARED = re.compile(
    rb"""<(?:meta\s[^>]{0,200}?charset|\?xml\s[^>]{0,200}?encoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.I
)


class UnreadableError(Exception):
    """The content of one file cannot be used; the message is the reason."""


@contextmanager
def open_binary(source: Source) -> Iterator[BinaryIO]:
    """Open the file for reading, unpacked when it is named ``.gz``.

    Raises:
        OSError: It cannot be opened, or is no regular file any more: nothing is waited for, and no link is followed.
    """
    with open(source.path, "rb", opener=_no_link) as file:
        if source.compressed:
            with gzip.open(file, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def regular_file(path: str, flags: int) -> int:
    """An opener that waits for nothing: pipes, sockets and devices are refused.

    Raises:
        OSError: It is one of those, or cannot be opened.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", path)
    return descriptor


def _no_link(path: str, flags: int) -> int:
    return regular_file(path, flags | getattr(os, "O_NOFOLLOW", 0))


def read_text(source: Source) -> str:
    """Read and decode a whole file.

    Raises:
        UnreadableError: It is empty, binary, larger than ``max_file_bytes``, damaged or in no known encoding.
    """
    data = read_bytes(source)
    if not data.strip():
        raise UnreadableError("is empty")
    sample = data[:_SAMPLE_BYTES]
    encoding = _encoding(source, sample, stray_controls=False)
    try:
        if encoding != "utf-8":
            return data.decode(encoding, "strict" if source.config.encoding else "replace")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if source.config.encoding:
            raise UnreadableError(f"is not valid {encoding} (byte {error.start}); see documents.encoding") from error
        # The sample was UTF-8 and the rest is not: look at a sample around the first bad byte.
        around = data[max(0, error.start - _SAMPLE_BYTES // 2) : error.start + _SAMPLE_BYTES // 2]
        return data.decode("utf-8" if _mostly_utf8(around) else _detected(around), "replace")


def read_bytes(source: Source) -> bytes:
    """Read a whole file, unpacked, up to the limit.

    Raises:
        UnreadableError: It is larger than ``max_file_bytes``, cannot be opened, or its gzip stream is damaged.
    """
    limit = source.config.max_file_bytes
    parts, size = [], 0
    try:
        with open_binary(source) as file:
            while size <= limit and (part := file.read(min(1 << 20, limit + 1 - size))):
                parts.append(part)
                size += len(part)
    except READ_ERRORS as error:
        raise UnreadableError(describe(error)) from error
    if size > limit:
        raise UnreadableError(f"is larger than documents.max_file_bytes ({limit:,} bytes)")
    return b"".join(parts)


def describe(error: BaseException) -> str:
    """One sentence for an error of `READ_ERRORS`."""
    if isinstance(error, EOFError):
        return "ends in the middle of its gzip stream"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"is not a sound gzip stream: {error}"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


@contextmanager
def open_utf8(source: Source) -> Iterator[BinaryIO]:
    """Open a file of any known encoding as a stream of UTF-8 bytes without a byte order mark.

    A span of the file is taken for UTF-8, and the stream stands at its start.

    Raises:
        UnreadableError: The beginning is binary or in no known encoding.
    """
    with open_binary(source) as file:
        if source.span is not None:
            file.seek(source.span.start)
            yield file
            return
        stream = io.BufferedReader(cast(io.RawIOBase, file), _SAMPLE_BYTES)
        sample = stream.peek(_SAMPLE_BYTES)
        encoding = _encoding(source, sample, stray_controls=True)
        if encoding == "utf-8-sig":
            stream.read(len(codecs.BOM_UTF8))
        if encoding in {"utf-8", "utf-8-sig"}:
            yield stream
        else:
            yield io.BufferedReader(_Recoded(stream, encoding), _SAMPLE_BYTES)


def utf8_start(source: Source) -> int | None:
    """Where the text of a file begins when it is UTF-8: behind a byte order mark; ``None`` for other encodings.

    Raises:
        UnreadableError: The beginning is binary or in no known encoding.
    """
    with open_binary(source) as file:
        encoding = _encoding(source, file.read(_SAMPLE_BYTES), stray_controls=True)
    return {"utf-8": 0, "utf-8-sig": len(codecs.BOM_UTF8)}.get(encoding)


def check_encoding(name: str | None) -> None:
    """Make sure that a configured encoding exists.

    Raises:
        DocumentError: Python knows no text encoding of that name.
    """
    try:
        if name is not None:
            "".encode(name)
    except (LookupError, ValueError) as error:
        raise DocumentError(f"documents.encoding {name!r} is not known; use a name such as utf-8 or latin-1") from error


def _encoding(source: Source, sample: bytes, *, stray_controls: bool) -> str:
    if source.config.encoding:
        return _stated(source.config.encoding, sample)
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    controls = len(_CONTROL.findall(sample))
    if controls > len(sample) * 0.02 or (b"\0" in sample and not stray_controls):
        raise UnreadableError("looks binary: it holds NUL bytes or control characters")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        if not _mostly_utf8(sample):
            return _declared(source, sample) or _detected(sample)
    return "utf-8"


def _stated(name: str, sample: bytes) -> str:
    """The encoding that is configured; unmarked UTF-16 and UTF-32 are little-endian, as everywhere."""
    plain = codecs.lookup(name).name
    marked = any(sample.startswith(mark) and marks.startswith(plain) for mark, marks in _BOMS)
    return f"{plain}-le" if plain in {"utf-16", "utf-32"} and not marked else name


def _mostly_utf8(sample: bytes) -> bool:
    """Whether only a few bytes are not UTF-8: text in other encodings hardly ever forms its sequences."""
    text = sample.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return sum(1 for character in text if character > "\x7f") - bad > bad


def _declared(source: Source, sample: bytes) -> str | None:
    match = _DECLARED.search(sample, 0, 4096) if source.extension in {".html", ".htm"} else None
    if match is None:
        return None
    name = match[1].decode("ascii").lower()
    try:
        "".encode(name)
    except LookupError:
        return None
    # A page that declares UTF-8 or UTF-16 and reached this line is neither.
    return None if name.startswith("utf") else name


def _detected(sample: bytes) -> str:
    best = from_bytes(sample).best()
    if best is None:
        raise UnreadableError("is in no encoding that can be recognised; set documents.encoding")
    return best.encoding


class _Recoded(io.RawIOBase):
    """A byte stream of some encoding read as UTF-8; what cannot be decoded becomes U+FFFD."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            data = self._stream.read(_SAMPLE_BYTES)
            self._rest = self._decoder.decode(data, final=not data).encode("utf-8", "replace")
            if not data:
                break
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
