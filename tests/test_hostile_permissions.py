"""Indexes that may not be written to, by permission, by the disk or by a limit: they are searched in a copy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests import small_disk, unprivileged
from tests.store_folders import closed_index

ROOT = Path(__file__).parents[1]
mounts = pytest.mark.skipif(
    not small_disk.is_possible(), reason="this system lets nobody mount a file system of their own"
)


@pytest.fixture
def index(quick_path: Path) -> Path:
    return closed_index(quick_path, [("moon", "The moon causes the tides."), ("bread", "Yeast makes dough rise.")])


QUOTA = """
import json, resource, sys
from pathlib import Path
from pipelines import TwoStagePipeline
from retrieval.errors import StoreFullError
index, told = Path(sys.argv[1]), []
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
for folder in (index, index.with_name("new")):
    try:
        with TwoStagePipeline.open(folder) as pipeline:
            pipeline.ingest([(f"q{number}", f"harbour {number}") for number in range(20)])
        told.append("written")
    except StoreFullError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def test_a_limit_on_the_size_of_files_is_told_and_nothing_is_damaged(index: Path) -> None:
    command = [sys.executable, "-c", QUOTA, str(index)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout, result.stderr
    old, new = json.loads(result.stdout)
    assert "(File too large); make room" in old + new
    assert "damaged" not in old + new
    for path in (index, index.with_name("new")):
        with TwoStagePipeline.open(path) as pipeline:
            before = pipeline.manifest.documents
            pipeline.ingest([("pier", "A pier in the sea.")])
            assert pipeline.manifest.documents == before + 1
            pipeline.store.verify()  # type: ignore[attr-defined]


READ = """
import json, sys, tempfile
from pathlib import Path
from pipelines import TwoStagePipeline
from pipelines.read_beside import open_beside
from retrieval.config import Config
from retrieval.errors import RetrievalError
index, answers = Path(sys.argv[1]), []
try:
    TwoStagePipeline.open(index).close()
except RetrievalError as error:
    answers.append(str(error))
with open_beside(index, Config(), None, answers.append) as pipeline:
    answers.append(pipeline.search("tides", top_k=1, rerank=False)[0].document_id)
with TwoStagePipeline.open(index, read_only=True) as pipeline:
    answers.append(pipeline.search("dough", top_k=1, rerank=False)[0].document_id)
answers.append([path.name for path in Path(tempfile.gettempdir()).iterdir()])
print(json.dumps(answers))
"""


def modes(folder: Path, change: int) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222 if change < 0 else path.stat().st_mode | 0o200)


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_an_index_that_may_not_be_written_to_is_searched_in_a_copy(index: Path, quick_path: Path) -> None:
    elsewhere = quick_path / "elsewhere"
    elsewhere.mkdir()
    modes(index, -1)
    before = states(index)
    result = unprivileged.run(READ, index, env={**os.environ, "TMPDIR": str(elsewhere)})
    assert result.stdout, result.stderr
    refused, told, *found, left = json.loads(result.stdout)
    assert f"cannot lock index {index.resolve()}: Permission denied; to search a copy" in refused
    assert "cannot be written to; searching a copy of its state of" in told
    assert (found, left) == (["moon", "bread"], [])
    assert states(index) == before
    modes(index, 1)


READ_ONLY_DISK = """
import shutil, subprocess
shutil.copytree(source, disk / "index")
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
sys.argv[1] = str(disk / "index")
"""


@mounts
def test_an_index_on_a_read_only_disk_is_searched_in_a_copy(index: Path, quick_path: Path) -> None:
    disk, elsewhere = quick_path / "disk", quick_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    code = f"source = {str(index)!r}\n{READ_ONLY_DISK}\n{READ}"
    program = small_disk.run(code, disk, megabytes=400, env={**os.environ, "TMPDIR": str(elsewhere)})
    output, errors = program.communicate(timeout=60)
    assert output, errors
    refused, _, *found, left = json.loads(output)
    assert "Read-only file system" in refused
    assert (found, left) == (["moon", "bread"], [])


OTHER_OWNER = """
import json, sys
from pipelines import TwoStagePipeline
from retrieval.errors import StoreCorruptError, StoreError
answers = []
for read_only in (False, True):
    try:
        with TwoStagePipeline.open(sys.argv[1], read_only=read_only) as pipeline:
            answers.append(pipeline.search("tides", top_k=1, rerank=False)[0].document_id)
    except StoreError as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""


def test_files_of_somebody_else_are_not_called_damaged(index: Path) -> None:
    modes(index / "generations/1/engine/segments", -1)
    result = unprivileged.run(OTHER_OWNER, index)
    assert result.stdout, result.stderr
    [kind, reason], found = json.loads(result.stdout)
    assert kind == "StoreError"
    assert "(Permission denied); have its files given to this user" in reason
    assert found == "moon"
    modes(index, 1)


@pytest.mark.parametrize("place", ["manifest.json", "generations/1/store.json", "generations/1/seal.json"])
def test_a_small_file_of_somebody_else_is_not_called_damaged(index: Path, place: str) -> None:
    (index / place).chmod(0)
    result = unprivileged.run(OTHER_OWNER, index)
    assert result.stdout, result.stderr
    [kind, reason], _ = json.loads(result.stdout)
    assert kind == "StoreError"
    assert f"{place} may not be read by this user" in reason
