"""kill -9 at random moments of an ingest; the resumed index equals one that was never killed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from retrieval.datatypes import StoredPoint

# The long version of kills is benchmarks/reliability.
TRIALS, KILLS_PER_TRIAL = 2, 2
TOPICS = ("tides", "bread", "guitars", "whales", "primes", "rain")
INGEST = """
import sys
from pipelines import TwoStagePipeline
with TwoStagePipeline.open(sys.argv[1]) as pipeline:
    pipeline.ingest(sys.argv[2])
"""


def write_documents(folder: Path, edition: str) -> Path:
    """1,500 files of which every third differs between editions and every fiftieth has several passages."""
    folder.mkdir(exist_ok=True)
    chosen = random.Random(7)
    for number in range(1500):
        topic = TOPICS[number % len(TOPICS)]
        body = " ".join(chosen.choices((*TOPICS, "the", "moon", "dough", "sea", "string", "number"), k=60))
        opening = edition if number % 3 == 0 else "same"
        parts = range(9 if number % 50 == 0 else 1)
        text = "\n\n".join(f"{opening} {topic} part {part}. {body}" for part in parts)
        (folder / f"{number:05}.txt").write_text(text, encoding="utf-8")
    return folder


def ingest(index: Path, documents: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", INGEST, str(index), str(documents)])


def ingest_completely(index: Path, documents: Path) -> float:
    started = time.perf_counter()
    assert ingest(index, documents).wait(timeout=300) == 0
    return time.perf_counter() - started


def ingest_until_killed(index: Path, documents: Path, seconds: float) -> bool:
    process = ingest(index, documents)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() != 0


def contents(index: Path) -> tuple[dict[str, StoredPoint], dict[str, object]]:
    with TwoStagePipeline.open(index) as pipeline:
        points = {point.id: point for point in pipeline.store.scan(vectors=True)}
        manifest = pipeline.manifest
    stable = {name: getattr(manifest, name) for name in ("documents", "passages", "terms", "ids_digest", "state")}
    return points, {**stable, "average_length": manifest.average_length}


def without_run(point: StoredPoint) -> dict[str, object]:
    return {key: value for key, value in point.payload.items() if key != "run"}


@pytest.mark.parametrize("updating", [False, True], ids=["first-ingest", "changed-documents"])
def test_killed_ingests_resume_to_the_same_index(tmp_path: Path, updating: bool) -> None:
    documents = write_documents(tmp_path / "documents", "first")
    reference, before = tmp_path / "reference", tmp_path / "before"
    duration = ingest_completely(reference, documents)
    if updating:
        subprocess.run(["cp", "-a", "--sparse=always", reference, before], check=True)
        write_documents(documents, "second")
        duration = ingest_completely(reference, documents)
    expected, expected_manifest = contents(reference)
    chosen = random.Random(11)
    for trial in range(TRIALS):
        index = tmp_path / f"killed-{trial}"
        while True:
            if updating:
                subprocess.run(["cp", "-a", "--sparse=always", before, index], check=True)
            struck = [
                ingest_until_killed(index, documents, chosen.uniform(0.3, 0.95) * duration)
                for _ in range(KILLS_PER_TRIAL)
            ]
            if struck[0]:
                break
            # Files that were read before are read faster: the kill came too late to prove anything.
            shutil.rmtree(index)
            duration *= 0.7
            assert duration > 0.1
        ingest_completely(index, documents)
        actual, actual_manifest = contents(index)
        assert actual_manifest == expected_manifest
        assert actual.keys() == expected.keys()
        for name, point in expected.items():
            assert without_run(actual[name]) == without_run(point)
            np.testing.assert_array_equal(actual[name].dense, point.dense)
