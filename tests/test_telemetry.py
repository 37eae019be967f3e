"""Nothing of ours reports to anybody: what would, writes an id of the machine below HOME first."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SEARCH = """
import os, sys
from pipelines import TwoStagePipeline
from retrieval.config import Config, MemoryStoreConfig
with TwoStagePipeline.open(config=Config(store=MemoryStoreConfig())) as pipeline:
    pipeline.ingest([("a", "copper pipe"), ("b", "bright star")])
    print(pipeline.search("pipe")[0].rerank_score is not None, "onnxruntime" in sys.modules)
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def run(program: str, home: Path, **environment: str) -> str:
    # CI and others keep ONNX Runtime quiet by themselves: they must not be what makes this pass.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**kept, "HOME": str(home), **environment},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_search_with_the_cross_encoder_leaves_no_trace_of_telemetry(tmp_path: Path) -> None:
    assert run(SEARCH, tmp_path).split() == ["True", "True", "1"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_who_wants_it_can_have_it(tmp_path: Path) -> None:
    assert run(SEARCH, tmp_path, ORT_DISABLE_TELEMETRY="0").split()[-1] == "0"


def test_reading_office_files_leaves_none_either(tmp_path: Path) -> None:
    pytest.importorskip("markitdown", reason="the extra documents is not installed")
    program = (
        "import os\nfrom retrieval.documents.converter import converter\n"
        "converter(512).convert(b'%PDF-1.4', '.pdf', 60)\nprint(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert run(program, tmp_path) == "1\n"
    assert not (tmp_path / ".cache" / "Microsoft").exists()


def test_everything_that_imports_onnx_runtime_refuses_first() -> None:
    importing = []
    for path in sorted((ROOT / "retrieval").rglob("*.py")) + sorted((ROOT / "pipelines").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            lines = [ast.unparse(node) for node in function.body]
            if any(line.startswith("import onnxruntime") for line in lines):
                importing.append(path.name)
                before = lines[: lines.index("import onnxruntime")]
                assert "refuse_telemetry()" in before, f"{path}: {function.name}"
    assert "cross_encoder.py" in importing
