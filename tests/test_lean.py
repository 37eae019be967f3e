"""A whole ingest and search where torch, transformers, sentence-transformers and numba cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import importlib.abc, json, sys

BLOCKED = {"torch", "transformers", "sentence_transformers", "model2vec", "scipy", "sklearn", "numba", "llvmlite"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked here")
        return None

sys.meta_path.insert(0, Blocker())

from pipelines import TwoStagePipeline

folder, documents = sys.argv[1:]
with TwoStagePipeline.open(folder) as pipeline:
    report = pipeline.ingest(documents)
    results = pipeline.search("how does dough rise", top_k=2)
print(json.dumps({
    "added": report.added,
    "best": results[0].document_id,
    "logit": results[0].rerank_score,
    "warnings": list(results.warnings),
    "loaded": sorted(BLOCKED & set(sys.modules)),
}))
"""


def test_ingest_search_and_rerank_need_no_torch(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "yeast.txt").write_text("Yeast makes dough rise.", encoding="utf-8")
    (documents / "tides.md").write_text("# Tides\\n\\nThe moon causes the tides.", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "index"), str(documents)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["added"], answer["best"], answer["warnings"], answer["loaded"]) == (2, "yeast.txt", [], [])
    assert isinstance(answer["logit"], float)
