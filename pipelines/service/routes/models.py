"""The models that are served, as OpenAI's clients list them."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from pipelines.service.auth import requires
from pipelines.service.config import ServiceConfig
from pipelines.service.context import Principal
from pipelines.service.core import ContextOf, ServiceOf
from pipelines.service.openapi import problems
from pipelines.service.served_models import unknown_model
from pipelines.service.strict_json import StrictRoute
from pipelines.service.wire import Reply
from pipelines.two_stage import TwoStagePipeline

router = APIRouter(route_class=StrictRoute, tags=["models"])


class Model(Reply):
    """A model that is served."""

    id: str = Field(examples=["starter-static"])
    object: Literal["model"] = "model"
    created: int = Field(description="when the index was begun, seconds since 1970")
    owned_by: str = "two-stage-retrieval"


class Models(Reply):
    """The encoder and the cross-encoder, each with its further names behind it."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models", responses=problems())
async def models(service: ServiceOf, context: ContextOf, _: Annotated[Principal, Depends(requires("read"))]) -> Models:
    """List the names under which the encoder of the index and the cross-encoder can be asked for."""
    return Models(data=await service.run(partial(_served, service.config), context))


@router.get("/v1/models/{name:path}", responses=problems(404))
async def model(
    name: str, service: ServiceOf, context: ContextOf, _: Annotated[Principal, Depends(requires("read"))]
) -> Model:
    """Say whether a model is served."""
    served = await service.run(partial(_served, service.config), context)
    found = next((one for one in served if one.id == name), None)
    if found is None:
        raise unknown_model(name, [one.id for one in served])
    return found


def _served(config: ServiceConfig, pipeline: TwoStagePipeline) -> list[Model]:
    created = int(datetime.fromisoformat(pipeline.manifest.created).timestamp())
    encoder = (pipeline.encoder.fingerprint.name, *config.embedding_names)
    return [
        Model(id=name, created=created)
        for name in dict.fromkeys((*encoder, pipeline.reranker().name, *config.rerank_names))
    ]
