"""kill -9 while quantization goes on and off: what the index says afterwards is what its search does."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from retrieval.config import parse_config
from retrieval.datatypes import Quantization, SearchRequest
from retrieval.stores import peek_quantization
from retrieval.stores.edge import EdgeStore
from tests.adapt_corpus import DIM, documents, write_model
from tests.store_folders import quick_folder

KILLS = 10
PASSAGES = 300
BINARY = Quantization("binary", 1, rescore=False)
ON_AND_OFF = """
import sys, time
from pipelines import TwoStagePipeline
from retrieval.datatypes import Quantization
def said(state):
    print(state, flush=True)
    if state == sys.argv[2]:
        time.sleep(60)
with TwoStagePipeline.open(sys.argv[1]) as pipeline:
    print("open", flush=True)
    while True:
        wanted = Quantization("binary", 1, rescore=False)
        assert pipeline.quantize(wanted, sample=5, max_loss=1).outcome == "kept"
        said("on")
        assert pipeline.quantize(Quantization()).outcome == "off"
        said("off")
"""


@pytest.fixture(scope="module")
def index() -> Iterator[Path]:
    with quick_folder() as folder:
        settings = parse_config({"encoder": {"model": str(write_model(folder / "tiny"))}})
        with TwoStagePipeline.open(folder / "index", settings) as pipeline:
            pipeline.ingest(documents(PASSAGES))
        yield folder / "index"


def is_rebuilding(index: Path) -> bool:
    return bool(json.loads((index / "generations/1/store.json").read_text()).get("switching"))


def kill_at(index: Path, moment: str, pause: float) -> None:
    """Let a process switch on and off, and kill it when it is ``on``, ``off``, at a ``rebuild`` or at ``any`` time."""
    command = [sys.executable, "-c", ON_AND_OFF, str(index), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        wanted = moment if moment in {"on", "off"} else "open"
        assert any(line.strip() == wanted for line in process.stdout)
        while moment == "rebuild" and not is_rebuilding(index):
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(pause)
        process.kill()


def searches(store: EdgeStore, **arguments: Any) -> list[list[tuple[str, float]]]:
    vectors = np.random.default_rng(3).normal(size=(8, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = store.search([SearchRequest(vector, 30, **arguments) for vector in vectors])
    return [[(point.id, point.score) for point in points] for points in found]


def require_truth(index: Path) -> tuple[str, bool]:
    """Compare what can be read without opening the index, what the open store says, and what its search does."""
    said, interrupted = peek_quantization(index, 1)
    with EdgeStore(parse_config({}), dim=DIM, path=index) as store:
        assert store.quantization == said
        assert store.count() == PASSAGES
        store.verify()
        plain, exact = searches(store), searches(store, exact=True)
        if said.kind == "none":
            assert plain == exact
        else:
            assert said == BINARY
            # Sums of bits: no score of a search that is not rescored is a cosine.
            for compressed, cosines in zip(plain, exact, strict=True):
                assert not {score for _, score in compressed} & {cosine for _, cosine in cosines}
    return said.kind, interrupted


def test_ten_kills_and_the_index_never_lies(index: Path) -> None:
    chosen = random.Random(21)
    seen: list[tuple[str, bool]] = []
    for kill in range(KILLS):
        moment = ("on", "rebuild", "any", "rebuild", "off")[kill % 5]
        kill_at(index, moment, chosen.uniform(0.0, 1.5 if moment == "any" else 0.2))
        seen.append(require_truth(index))
        if moment in {"on", "off"}:
            assert seen[-1] == ("binary" if moment == "on" else "none", False)
    assert ("none", True) in seen, "no kill came while segments were rebuilt"
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.quantize(BINARY, sample=5, max_loss=1).outcome == "kept"
    assert require_truth(index) == ("binary", False)
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.quantize(Quantization()).outcome == "off"
    assert require_truth(index) == ("none", False)
    engine = index / "generations/1/engine"
    assert "quantization_config" not in json.loads((engine / "edge_config.json").read_text())
    assert not list(engine.rglob("quantized*"))
