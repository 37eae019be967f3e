"""Vectors of texts, as OpenAI's clients ask for them.

A short text costs some ten microseconds to encode, and a framework many times that. So there are three ways to the same
answer: `at_once` for the `Shortcut` of the protocol, `fast_embeddings` for the door, before routing, and the route.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from pipelines.service.auth import authorize, requires
from pipelines.service.context import Principal, RequestContext, context_of
from pipelines.service.core import ContextOf, Service, ServiceOf
from pipelines.service.door import AsgiApp, Scope
from pipelines.service.errors import ServiceError
from pipelines.service.limits import ClientGoneError, Receive, Send
from pipelines.service.openapi import problems
from pipelines.service.served_models import require_model
from pipelines.service.strict_json import StrictRoute, parse_json
from pipelines.service.wire import Cap, Count, Reply, Wire, check_caps
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import FloatArray
from retrieval.protocols import Encoder

PATH = "/v1/embeddings"
INLINE_CHARACTERS = 4_096
"""Texts up to here together are encoded on the event loop: the way to a worker and back would take longer."""

router = APIRouter(route_class=StrictRoute, tags=["models"])


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    first = value
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, int | float) and not isinstance(first, bool):
        raise ServiceError(
            400,
            "token_input",
            "input is a text or a list of texts, not token numbers: those belong to the tokenizer of another model "
            "(LangChain's OpenAIEmbeddings sends texts with check_embedding_ctx_length=False)",
        )
    return value


NonEmpty = Annotated[str, Field(min_length=1)]
# The bound of the characters comes last: for the single string it replaces the bound of the list.
Inputs = Annotated[
    list[NonEmpty],
    Field(min_length=1, description="a text, or a list of texts; token numbers are refused"),
    BeforeValidator(_texts, json_schema_input_type=NonEmpty | Annotated[list[NonEmpty], Field(min_length=1)]),
    Cap("inputs"),
    Cap("input_characters", each=True),
]


class EmbeddingsRequest(Wire):
    """What OpenAI's clients send."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": "pipe not broken but leaking", "model": "starter-static"},
                {"input": ["first text", "second text"], "dimensions": 64, "encoding_format": "base64"},
            ]
        }
    )

    input: Inputs
    model: str | None = Field(default=None, description="name of the encoder; null for the one that is served")
    dimensions: Count | None = Field(
        default=None, description="the first so many dimensions, at unit length; null for all"
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="numbers (also where null), or the base64 of little-endian float32"
    )
    user: str | None = Field(default=None, description="not used; clients may send it")


class Embedding(Reply):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(ge=0)
    embedding: list[float] | str = Field(
        description="of unit length, or all zero for a text without a known word; a string where base64 was asked for"
    )


class Usage(Reply):
    """How many tokens the texts have."""

    prompt_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class EmbeddingsReply(Reply):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


_VALIDATE = EmbeddingsRequest.__pydantic_validator__.validate_python


@router.post(PATH, response_model=EmbeddingsReply, responses=problems(404))
async def embeddings(
    body: EmbeddingsRequest,
    service: ServiceOf,
    context: ContextOf,
    _: Annotated[Principal, Depends(requires("read"))],
) -> Response:
    """Encode texts with the static encoder of the index; OpenAI's wire format."""
    return Response(await _answer(service, body, context), media_type="application/json")


def fast_embeddings(service: Service) -> AsgiApp:
    """The same without FastAPI, for the door."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        authorize(context, "read")
        content = await _answer(service, read_request(await _whole_body(receive)), context)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return answer


def read_request(body: bytes) -> EmbeddingsRequest:
    """The request in a body.

    Raises:
        ServiceError: 400, the body is not JSON or holds token numbers.
        RequestValidationError: It is not as described.
    """
    try:
        content = parse_json(body)
    except json.JSONDecodeError as error:
        raise ServiceError(400, "malformed_json", f"the body is not JSON: {error.msg}") from None
    try:
        request: EmbeddingsRequest = _VALIDATE(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in problems]) from None
    return request


def describe_dimensions(document: dict[str, Any], most: int) -> None:
    """Write into the OpenAPI document how many dimensions the encoder has."""
    schema = document["components"]["schemas"][EmbeddingsRequest.__name__]["properties"]["dimensions"]
    schema["anyOf"][0]["maximum"] = most


def encode(encoder: Encoder, request: EmbeddingsRequest) -> bytes:
    """The answer as JSON.

    Raises:
        ServiceError: 400, the encoder has fewer dimensions than asked for.
    """
    vectors = _cut(encoder.encode_documents(request.input), request.dimensions, encoder)
    tokens = sum(map(encoder.count_tokens, request.input))
    shown: Any = vectors
    if request.encoding_format == "base64":
        shown = [b64encode(row.tobytes()).decode("ascii") for row in vectors.astype("<f4", copy=False)]
    return orjson.dumps(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(shown)],
            "model": encoder.fingerprint.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def at_once(service: Service, body: bytes) -> bytes | None:
    """The answer to the request in a body, ``None`` when its texts are too long for the event loop.

    Raises:
        ServiceError: The request is refused.
        RequestValidationError: It is not as described.
    """
    request = read_request(body)
    if _is_short(service, request):
        return _encoded(service, request, service.holder.current)
    return None


async def _answer(service: Service, request: EmbeddingsRequest, context: RequestContext) -> bytes:
    if _is_short(service, request):
        return _encoded(service, request, service.holder.current)
    return await service.run(partial(_encoded, service, request), context)


def _is_short(service: Service, request: EmbeddingsRequest) -> bool:
    """Whether the event loop may encode the texts; too many or too long ones are refused."""
    limits = service.config.limits
    characters = sum(map(len, request.input))
    if len(request.input) > limits.inputs or characters > limits.input_characters:
        check_caps(request, limits)
    return characters + len(request.input) <= INLINE_CHARACTERS


def _encoded(service: Service, request: EmbeddingsRequest, pipeline: TwoStagePipeline) -> bytes:
    encoder = pipeline.encoder
    require_model(request.model, encoder.fingerprint.name, service.config.embedding_names)
    return encode(encoder, request)


def _cut(vectors: FloatArray, dimensions: int | None, encoder: Encoder) -> FloatArray:
    if dimensions is None or dimensions == encoder.dim:
        return vectors
    if dimensions > encoder.dim:
        detail = f"dimensions is 1 to {encoder.dim} for {encoder.fingerprint.name}, not {dimensions}"
        raise ServiceError(400, "too_many_dimensions", detail)
    first = vectors[:, :dimensions].astype(np.float64)
    norms = np.sqrt((first**2).sum(axis=1, keepdims=True))
    cut: FloatArray = (first / np.where(norms > 0, norms, 1)).astype(np.float32)
    return cut


async def _whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client left before its request was complete")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
