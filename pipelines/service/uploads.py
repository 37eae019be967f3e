"""Bodies of ingest requests onto the disk: documents in JSON, a stream of them in NDJSON, or files."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from pipelines.service.config import LimitsConfig
from pipelines.service.errors import ServiceError
from pipelines.service.filters import COMPONENT
from pipelines.service.limits import too_large
from pipelines.service.multipart import MultipartFiles
from pipelines.service.spool import Upload, close_durably
from pipelines.service.strict_json import parse_json
from pipelines.service.wire import WITHOUT_NUL, Text, Wire

Kind = Literal["documents", "files"]
"""What the files of an upload are: one document a line, or files as people have them."""

NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_WRITE_BYTES = 2**20
_METADATA_DEPTH = 20


def _storable(value: Any, depth: int = 0) -> Any:
    if depth > _METADATA_DEPTH:
        raise ValueError(f"metadata is nested more than {_METADATA_DEPTH} levels deep")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("metadata holds a NUL character")
    if isinstance(value, dict):
        for key, item in value.items():
            _storable(key, depth)
            _storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _storable(item, depth + 1)
    return value


Metadata = Annotated[
    dict[str, Any], AfterValidator(_storable), WithJsonSchema({"type": "object", COMPONENT: "Metadata"})
]


_STRING = {"type": "string", "pattern": WITHOUT_NUL}
_VALUE = {"$ref": "#/components/schemas/JsonValue"}
_MEMBERS = {"type": "object", "propertyNames": _STRING, "additionalProperties": _VALUE}
_METADATA_SCHEMAS: dict[str, Any] = {
    "Metadata": {**_MEMBERS, "description": f"JSON values, nested at most {_METADATA_DEPTH} levels deep."},
    "JsonValue": {
        "anyOf": [
            _STRING,
            {"type": ["number", "boolean", "null"]},
            {"type": "array", "items": _VALUE},
            _MEMBERS,
        ]
    },
}


class DocumentIn(Wire):
    """One document to put into the index; another one with this id is replaced."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "manual-17",
                    "title": "Pipes",
                    "text": "A leaking pipe can be sealed with epoxy putty.",
                    "metadata": {"year": 2024, "topic": "plumbing"},
                }
            ]
        }
    )
    id: Annotated[Text, Field(min_length=1, max_length=512)]
    text: Text
    title: Annotated[Text, Field(max_length=1_000)] = ""
    metadata: Metadata = Field(default_factory=dict, description="values to filter by and to show")


class IngestRequest(Wire):
    """Documents to put into the index."""

    documents: Annotated[list[DocumentIn], Field(min_length=1)]


def schemas() -> dict[str, Any]:
    """The components of the OpenAPI document that describe an ingest in JSON."""
    request = IngestRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**request.pop("$defs"), "IngestRequest": request, **_METADATA_SCHEMAS}


async def receive_upload(request: Request, upload: Upload, limits: LimitsConfig) -> Kind:
    """Put the body of an ingest request onto the disk, with bounded memory.

    Args:
        request: The request; its ``Content-Type`` says what comes.
        upload: Where it goes.
        limits: How much may come.

    Raises:
        ServiceError: 400, it is malformed; 413, too large; 415, of another type; 422, empty or not as described;
            507, the disk is full.
        RequestValidationError: Documents in JSON are not as described.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        if media_type == "application/json":
            await _receive_json(request, upload, limits)
            return "documents"
        if media_type in NDJSON_TYPES:
            await _receive_lines(request, upload)
            return "documents"
        if media_type == "multipart/form-data":
            await _receive_files(request, content_type, upload, limits)
            return "files"
    except OSError as error:
        raise disk_error(error) from error
    raise ServiceError(
        415, "unsupported_media_type", "send application/json, application/x-ndjson or multipart/form-data"
    )


async def _receive_json(request: Request, upload: Upload, limits: LimitsConfig) -> None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.json_bytes:
            raise too_large(limits.json_bytes)
    await asyncio.to_thread(_write_documents, bytes(body), upload)


def _write_documents(body: bytes, upload: Upload) -> None:
    try:
        documents = IngestRequest.model_validate(parse_json(body)).documents
    except json.JSONDecodeError as error:
        raise ServiceError(400, "malformed_json", f"the body is not JSON: {error.msg}") from None
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        raise RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems]) from None
    file = upload.create("documents.ndjson")
    try:
        for document in documents:
            file.write(document.model_dump_json().encode() + b"\n")
    finally:
        close_durably(file)


async def _receive_lines(request: Request, upload: Upload) -> None:
    file = await asyncio.to_thread(upload.create, "documents.ndjson")
    empty = True

    def write(data: bytes) -> None:
        nonlocal empty
        empty = empty and data.isspace()
        file.write(data)

    try:
        await _in_parts(request, write)
    finally:
        await asyncio.to_thread(close_durably, file)
    if empty:
        raise ServiceError(422, "no_documents", "the body is empty; send one JSON object a line")


async def _receive_files(request: Request, content_type: str, upload: Upload, limits: LimitsConfig) -> None:
    files = MultipartFiles(content_type, upload, limits.files)
    try:
        await _in_parts(request, files.feed)
        await asyncio.to_thread(files.finish)
    finally:
        files.close()


async def _in_parts(request: Request, write: Callable[[bytes], None]) -> None:
    """Hand the body on in parts that are worth a trip to another thread."""
    async for part in _parts(request):
        await asyncio.to_thread(write, part)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    part = bytearray()
    async for chunk in request.stream():
        part += chunk
        if len(part) >= _WRITE_BYTES:
            yield bytes(part)
            part = bytearray()
    if part:
        yield bytes(part)


def disk_error(error: OSError) -> ServiceError:
    """What it means to a client that the disk refused its upload."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ServiceError(507, "disk_full", "too little disk is left for the upload")
    return ServiceError(503, "spool_failed", "the upload cannot be kept on disk; the log says why")
