"""kill -9 at random moments of an adaptation: one complete generation is live, and nothing else is left."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests.adapt_corpus import documents, write_model
from tests.store_folders import quick_folder
from tests.test_adapt import copied, generations, require_vectors_of_its_encoder

KILLS = 4
ADAPT = """
import sys
from pipelines import TwoStagePipeline
with TwoStagePipeline.open(sys.argv[1]) as pipeline:
    print("open", flush=True)
    report = pipeline.adapt(steps=40, seed=1, on_progress=lambda progress: print(progress.stage, flush=True))
    assert report.switched
    print("done", flush=True)
"""
STAGES = ("training", "encoding", "switching", "done")


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with quick_folder() as folder:
        write_model(folder / "tiny")
        from retrieval.config import parse_config

        settings = parse_config({"encoder": {"model": str(folder / "tiny")}})
        with TwoStagePipeline.open(folder / "base", settings) as pipeline:
            pipeline.ingest(documents(700))
        yield folder / "base"


def adapt_until(index: Path, stage: str, pause: float) -> None:
    """Run an adaptation in a process of its own and kill it some moments after it has reported a stage."""
    with subprocess.Popen([sys.executable, "-c", ADAPT, str(index)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == stage:
                time.sleep(pause)
                break
        process.kill()


def test_a_killed_adaptation_leaves_one_complete_generation(base: Path) -> None:
    chosen = random.Random(13)
    live: set[int] = set()
    for kill in range(KILLS):
        with quick_folder() as folder:
            index = copied(base, folder / "index")
            adapt_until(index, STAGES[kill % len(STAGES)], chosen.uniform(0.0, 0.1))
            named = json.loads((index / "manifest.json").read_text())
            with TwoStagePipeline.open(index) as pipeline:
                manifest = pipeline.manifest
                live.add(manifest.generation)
                assert manifest.generation == named["generation"]
                assert generations(index) == (["1"] if manifest.generation == 1 else ["1", "2"])
                assert (manifest.state, manifest.passages, pipeline.store.count()) == ("ready", 700, 700)
                pipeline.store.verify()  # type: ignore[attr-defined]
                require_vectors_of_its_encoder(pipeline)
                assert len(pipeline.search(documents(1)[0][1], 5, rerank=False)) == 5
    assert live == {1, 2}, "the kills came at one time only"
