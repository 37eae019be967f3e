"""Readers of an index, in this process and in others, for the tests of readers beside a writer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines import TwoStagePipeline
from pipelines.reader import IndexReader
from retrieval.config import parse_config

ROOT = Path(__file__).parents[1]
FACTS = [("moon", "The moon causes the tides."), ("bread", "Yeast makes dough rise."), ("pier", "A pier in the sea.")]


def reader(index: Path, **sections: Any) -> IndexReader:
    """A reader, with these sections of the configuration."""
    opened = TwoStagePipeline.open(index, parse_config(sections) if sections else None, read_only=True)
    assert isinstance(opened, IndexReader)
    return opened


def first(pipeline: TwoStagePipeline, query: str) -> str | None:
    """The document that the first stage finds best."""
    hits = pipeline.search(query, top_k=1, rerank=False)
    return hits[0].document_id if hits else None


def publications(index: Path) -> list[str]:
    """Names of the publications that are there."""
    return sorted(path.name for path in (index / "published").iterdir() if path.is_dir() and path.name != "views")


def views(index: Path) -> list[Path]:
    """Copies that readers have open, and their locks."""
    return sorted((index / "published" / "views").iterdir())


def state_of(pipeline: TwoStagePipeline) -> str:
    """Names the state of an index that a pipeline has read last."""
    manifest = pipeline.manifest
    return f"{manifest.generation} {manifest.passages} {manifest.ids_digest}"


def answers(pipeline: TwoStagePipeline, queries: list[str]) -> Any:
    """What the first stage says to each query: ids and scores."""
    found = pipeline.search_many(queries, top_k=8, rerank=False)
    return [[[hit.document_id, round(hit.score, 5)] for hit in results] for results in found]


def read_until_told(index: str, queries: list[str]) -> None:
    """Search until a line comes in, and once more after it; every new state or answer is a line of output."""
    with TwoStagePipeline.open(index, read_only=True) as pipeline:
        last, searches, ending = None, 0, False
        while True:
            found = [answers(pipeline, queries), state_of(pipeline)]
            searches += 1
            if found != last:
                sys.stdout.write(f"{json.dumps(found)}\n")
                sys.stdout.flush()
                last = found
            if ending:
                break
            # The pause leaves the writer some of the machine.
            if select.select([sys.stdin], [], [], 0.03)[0]:
                sys.stdin.readline()
                pipeline.refresh()  # type: ignore[attr-defined]
                ending = True
        sys.stdout.write(f"{json.dumps(searches)}\n")


def started(index: Path, queries: list[str]) -> subprocess.Popen[str]:
    """A process that reads; write a line to end it."""
    command = [sys.executable, "-m", "tests.reader_process", str(index), json.dumps(queries)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process with this module's names."""
    command = [sys.executable, "-c", "from tests.reader_process import *\n" + code, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **{**pipes, **options}, env={**os.environ, "PYTHONPATH": str(ROOT)})


if __name__ == "__main__":
    read_until_told(sys.argv[1], json.loads(sys.argv[2]))
