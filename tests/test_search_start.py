"""What a search from the command line imports, and what it does without: each of these costs more than the search."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests.store_folders import quick_folder

PROGRAM = """
import io, json, sys
from pipelines.cli import main
answer, sys.stdout = sys.stdout, io.StringIO()
try:
    main()
except SystemExit as end:
    code = end.code
found, sys.stdout = sys.stdout.getvalue(), answer
print(json.dumps({"code": code, "found": json.loads(found), "modules": sorted(sys.modules)}))
"""
PACKAGES = {
    "torch", "transformers", "sentence_transformers", "sklearn", "scipy", "pandas", "matplotlib", "PIL",
    "numba", "llvmlite", "ray", "model2vec", "huggingface_hub", "qdrant_client", "grpc", "httpx",
    "fastapi", "starlette", "uvicorn", "mcp", "prompt_toolkit", "opentelemetry", "ir_measures", "bs4", "pypdf",
    "semantic_text_splitter", "watchfiles", "jinja2", "rich", "asyncio", "multiprocessing", "unittest", "http",
}  # fmt: skip
OURS = (
    "pipelines.ingest", "pipelines.writer", "pipelines.adapt", "pipelines.commands.ingest", "pipelines.commands.serve",
    "pipelines.service", "pipelines.evaluation", "pipelines.tuning", "pipelines.quantization",
    "pipelines.mcp_server", "retrieval.chunking", "retrieval.documents", "retrieval.training", "retrieval.evaluation",
    "retrieval.stores.server",
)  # fmt: skip


@pytest.fixture(scope="module")
def index() -> Iterator[Path]:
    with quick_folder() as folder:
        (folder / "texts").mkdir()
        (folder / "texts" / "pipe.txt").write_text("A rubber clamp stops a leaking pipe.", encoding="utf-8")
        (folder / "texts" / "moon.txt").write_text("The moon causes the tides.", encoding="utf-8")
        with TwoStagePipeline.open(folder / "index") as pipeline:
            pipeline.ingest(folder / "texts")
        yield folder / "index"


def imported_by(index: Path, *options: str) -> set[str]:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, "search", "leaking pipe", "--index", str(index), "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["code"] == 0
    assert printed["found"]["hits"][0]["document_id"] == "pipe.txt"
    return set(printed["modules"])


def unwanted(modules: set[str]) -> set[str]:
    named = {name.partition(".")[0] for name in modules} & PACKAGES
    return named | {name for name in modules if name.startswith(OURS)}


def test_the_first_stage_alone_does_without_the_runtime_of_the_cross_encoder(index: Path) -> None:
    modules = imported_by(index, "--no-rerank")
    assert {"numpy", "qdrant_edge", "tokenizers"} <= modules
    assert unwanted(modules) == set()
    assert "onnxruntime" not in modules


def test_both_stages_import_the_runtime_and_nothing_else_that_is_large(index: Path) -> None:
    modules = imported_by(index)
    assert "onnxruntime" in modules
    assert unwanted(modules) == set()
