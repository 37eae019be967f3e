"""Full disks: writing stops in time, and where it does not, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import small_disk

ROOT = Path(__file__).parents[1]
mounts = pytest.mark.skipif(
    not small_disk.is_possible(), reason="this system lets nobody mount a file system of their own"
)


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
def test_writing_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(quick_path: Path) -> None:
    output, errors = small_disk.run(BEGIN + FILLING, quick_path, megabytes=200).communicate(timeout=120)
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
def test_without_a_reserve_a_full_disk_kills_the_process_and_costs_nothing_acknowledged(quick_path: Path) -> None:
    code = f"BEGIN = {BEGIN!r}\n{BEGIN}{KILLED}"
    output, errors = small_disk.run(code, quick_path, megabytes=160).communicate(timeout=120)
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
def test_on_a_full_disk_a_copy_elsewhere_is_searched(quick_path: Path) -> None:
    disk, elsewhere = quick_path / "disk", quick_path / "elsewhere"
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
