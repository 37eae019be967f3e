"""Full disks, small files and folders that may not be written to: a clear refusal, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests import small_disk, unprivileged
from tests.store_folders import quick_folder

ROOT = Path(__file__).parents[1]
mounts = pytest.mark.skipif(
    not small_disk.is_possible(), reason="this system lets nobody mount a file system of their own"
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    with TwoStagePipeline.open(path) as pipeline:
        pipeline.ingest([("moon", "The moon causes the tides."), ("bread", "Yeast makes dough rise.")])
    return path


BEGIN = """
import json, os, shutil, subprocess
import numpy as np
from pipelines import TwoStagePipeline
from pipelines.read_beside import open_beside
from retrieval.config import parse_config
from retrieval.datatypes import Point
from retrieval.errors import StoreError, StoreFullError
from retrieval.stores.edge import EdgeStore

def settings(reserve):
    return parse_config({"store": {"kind": "edge", "min_free_mb": reserve, "publish": False}})

def opened(reserve, folder=None):
    store = EdgeStore(settings(reserve), dim=8, path=folder or disk / "index")
    if store.read_manifest() is None:
        store.write_manifest({"schema_version": 1, "state": "ingesting"})
    return store

def batch(first):
    vector = np.eye(8, dtype=np.float32)[first % 8]
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(first, first + 100)]
    return [Point(name, vector, None, {"number": first, "filling": os.urandom(15_000).hex()}) for name in ids]

def room(megabytes):
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(disk)], check=True)
"""
FILLING = """
acknowledged = 0
with opened(24) as store:
    try:
        while True:
            store.upsert(batch(acknowledged))
            acknowledged += 100
    except StoreFullError as error:
        full = str(error)
    held = store.count()
free = shutil.disk_usage(disk).free
room(1000)
with opened(24) as store:
    kept = store.count()
    store.upsert(batch(acknowledged))
    after = store.count()
print(json.dumps([full, acknowledged, held, free // 2**20, kept, after]))
"""


@mounts
def test_writing_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    output, errors = small_disk.run(BEGIN + FILLING, tmp_path, megabytes=200).communicate(timeout=120)
    assert output, errors
    full, acknowledged, held, free, kept, after = json.loads(output)
    assert "needs 24 MiB of free disk and has" in full
    assert free >= 5  # the last batch has gone into the reserve, in the log and in the segment
    assert kept == held == acknowledged >= 300
    assert after == kept + 100


KILLED = """
child = BEGIN + '''
with opened(0) as store:
    done = 0
    while True:
        store.upsert(batch(done))
        done += 100
        os.write(1, f"{done} ".encode())
'''
program = "import sys; from pathlib import Path; disk = Path(sys.argv[1])" + child
killed = subprocess.run([sys.executable, "-c", program, str(disk)], capture_output=True, text=True)
acknowledged = int(killed.stdout.split()[-1])
try:
    opened(0)
except StoreFullError as error:
    full = str(error)
room(1000)
with opened(0) as store:
    counts = [store.count({"must": [{"key": "number", "match": {"value": at}}]}) for at in range(0, acknowledged, 100)]
print(json.dumps([killed.returncode, acknowledged, full, counts]))
"""


@mounts
def test_without_a_reserve_a_full_disk_kills_the_process_and_costs_nothing_acknowledged(tmp_path: Path) -> None:
    code = f"BEGIN = {BEGIN!r}\n{BEGIN}{KILLED}"
    output, errors = small_disk.run(code, tmp_path, megabytes=160).communicate(timeout=120)
    assert output, errors
    status, acknowledged, full, counts = json.loads(output)
    assert status < 0
    assert "was not closed in order, and to open it needs" in full
    assert acknowledged >= 300
    assert set(counts) == {100}


SEARCHED = """
with TwoStagePipeline.open(disk / "index", settings(0)) as pipeline:
    pipeline.ingest([(f"d{number}", f"lighthouse {number}") for number in range(20)])
with open(disk / "other", "wb", buffering=0) as file:
    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
try:
    TwoStagePipeline.open(disk / "index", settings(0))
except StoreFullError as error:
    full = str(error)
told = []
with open_beside(disk / "index", settings(0), None, told.append) as pipeline:
    found = pipeline.search("lighthouse 7", top_k=1, rerank=False)[0].document_id
os.unlink(disk / "other")
with TwoStagePipeline.open(disk / "index", settings(0)) as pipeline:
    count = pipeline.store.count()
print(json.dumps([full, told, found, count, sorted(path.name for path in Path(os.environ["TMPDIR"]).iterdir())]))
"""


@mounts
def test_on_a_full_disk_a_copy_elsewhere_is_searched(tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    environment = {**os.environ, "TMPDIR": str(elsewhere)}
    program = small_disk.run(BEGIN + SEARCHED, disk, megabytes=160, env=environment)
    output, errors = program.communicate(timeout=120)
    assert output, errors
    full, [told], found, count, left = json.loads(output)
    assert "cannot be written to (No space left on device); make room, and try again: nothing is lost" in full
    assert "the disk of the index is full; searching a copy of its state of" in told
    assert (found, count, left) == ("d7", 20, [])


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


def test_an_index_that_may_not_be_written_to_is_searched_in_a_copy(index: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
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
def test_an_index_on_a_read_only_disk_is_searched_in_a_copy(index: Path, tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
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
