"""What one writes in an afternoon instead: an embeddings route of FastAPI around a static model.

ENCODER=model2vec MODEL=folder uvicorn benchmarks.service_peer:app
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from retrieval.config import EncoderConfig

app = FastAPI()


class Request(BaseModel):
    input: str | list[str]
    model: str | None = None
    encoding_format: str = "float"


def open_model() -> Any:
    """`encode` of Model2Vec, or of the encoder of this project."""
    folder = os.environ["MODEL"]
    if os.environ["ENCODER"] == "model2vec":
        from model2vec import StaticModel

        return StaticModel.from_pretrained(folder).encode
    from retrieval.models import open_encoder

    return open_encoder(EncoderConfig(model=folder)).encode_documents


encode = open_model()


@app.get("/ready")
def ready() -> str:
    return "ready"


@app.post("/v1/embeddings")
async def embeddings(request: Request) -> dict[str, Any]:
    texts = [request.input] if isinstance(request.input, str) else request.input
    data = [
        {"object": "embedding", "index": index, "embedding": vector.tolist()}
        for index, vector in enumerate(encode(texts))
    ]
    return {"object": "list", "data": data, "model": "peer", "usage": {"prompt_tokens": 0, "total_tokens": 0}}
