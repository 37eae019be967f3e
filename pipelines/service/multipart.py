"""Files of a multipart body, written to disk while they come."""

from __future__ import annotations

import contextlib
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipelines.service.errors import ServiceError
from pipelines.service.spool import Upload, close_durably

FIELD = "files"


class MultipartFiles:
    """Takes the body in parts of any size and puts each file into an upload.

    Args:
        content_type: Header with the boundary.
        upload: Where the files go.
        limit: Most files.

    Raises:
        ServiceError: 400, there is no usable boundary.
    """

    def __init__(self, content_type: str, upload: Upload, limit: int) -> None:
        _, options = parse_options_header(content_type)
        self._upload = upload
        self._limit = limit
        self._file: IO[bytes] | None = None
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._ended = False
        self.count = 0
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._file_begins,
                    "on_part_data": self._file_data,
                    "on_part_end": self._file_ends,
                    "on_end": self._body_ends,
                },
            )
        except (KeyError, FormParserError) as error:
            raise _malformed("its Content-Type names no usable boundary") from error

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            ServiceError: 400, they are not multipart; 422, a part is no file or there are too many.
            OSError: The disk refuses.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed("its parts cannot be told apart") from error

    def finish(self) -> None:
        """Say that the body has ended.

        Raises:
            ServiceError: 400, it ended too early; 422, there was no file in it.
        """
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if not self.count:
            raise ServiceError(422, "no_documents", f"the body holds no file; send files in the field {FIELD!r}")

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _part_begins(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _file_begins(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise ServiceError(422, "not_a_file", f"every part of the body is a file in the field {FIELD!r}")
        self.count += 1
        if self.count > self._limit:
            raise ServiceError(422, "too_large", f"the body holds more than {self._limit:,} files")
        self._file = self._upload.create(options[b"filename"].decode("utf-8", "replace"))

    def _file_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _file_ends(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            close_durably(file)

    def _body_ends(self) -> None:
        self._ended = True


def _malformed(why: str) -> ServiceError:
    return ServiceError(400, "malformed_multipart", f"the body is not multipart/form-data: {why}")
