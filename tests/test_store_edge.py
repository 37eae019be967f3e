"""What the embedded store does when processes die, disks fill and files are damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest, SparseVector
from retrieval.errors import (
    IndexMismatchError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreInputError,
)
from retrieval.stores import edge_engine, json_files, open_store
from retrieval.stores.edge import EdgeStore
from retrieval.stores.lock import IndexLock
from tests.store_folders import quick_folder

DIM = 8
ROOT = Path(__file__).parents[1]


def name(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def points(first: int, last: int) -> list[Point]:
    chosen = np.random.default_rng(1)
    vectors = chosen.normal(size=(last + 1, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    terms = SparseVector(np.array([1], np.uint32), np.ones(1, np.float32))
    return [Point(name(number), vectors[number], terms, {"n": number}) for number in range(first, last + 1)]


def settings(**sections: Any) -> Config:
    return parse_config({"store": {"kind": "edge"}, **sections})


def open_edge(path: Path, config: Config | None = None, **arguments: Any) -> EdgeStore:
    return EdgeStore(config or settings(), dim=arguments.pop("dim", DIM), path=path, **arguments)


def ready(store: EdgeStore) -> dict[str, Any]:
    ids = [point.id for point in store.scan(payload=False)]
    return {"schema_version": 1, "state": "ready", "passages": len(ids), "ids_digest": json_files.ids_digest(ids)}


@pytest.fixture
def index(quick_path: Path) -> Path:
    """A closed index of twenty points with its manifest."""
    path = quick_path / "index"
    with open_edge(path) as store:
        store.upsert(points(1, 20))
        store.write_manifest(ready(store))
    return path


def nearest(store: EdgeStore, number: int, **arguments: Any) -> list[str]:
    (wanted,) = points(number, number)
    assert wanted.dense is not None
    return [hit.id for hit in store.search([SearchRequest(wanted.dense, 3, **arguments)])[0]]


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from tests.test_store_edge import *\n" + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HOLD = """
store = open_edge(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def unseal(index: Path) -> None:
    """As after a writer that was killed: nobody knows how the files should be."""
    (index / "generations/1/seal.json").unlink()


def test_an_index_reopens_with_everything(index: Path) -> None:
    with open_edge(index) as store:
        assert store.count() == 20
        assert nearest(store, 7)[0] == name(7)
        assert store.location == str(index)
        store.verify()


def test_the_factory_makes_it_and_wants_a_folder(quick_path: Path) -> None:
    store = open_store(parse_config({"store": {"kind": "edge", "path": str(quick_path / "from-config")}}), dim=DIM)
    assert isinstance(store, EdgeStore)
    assert store.location == str(quick_path / "from-config")
    store.close()
    with pytest.raises(StoreError, match=r"needs a folder: set store\.path or pass --index DIR"):
        open_store(settings(), dim=DIM)


def test_a_second_process_is_told_who_has_the_index(index: Path) -> None:
    holder = run_python(HOLD, index)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(StoreBusyError, match=f"index {index} is in use by process {holder.pid};"):
        open_edge(index)
    holder.kill()
    holder.communicate()
    with open_edge(index) as store:
        assert store.count() == 20


def test_a_second_handle_in_one_process_is_refused(index: Path) -> None:
    with open_edge(index), pytest.raises(StoreBusyError, match="in use by this process, through another handle"):
        open_edge(index)
    open_edge(index).close()


def test_another_program_in_the_engine_folder_is_noticed(index: Path) -> None:
    shard = qdrant_edge.EdgeShard.load(str(index / "generations/1/engine"))
    with pytest.raises(StoreBusyError, match="in use by another program"):
        open_edge(index)
    shard.close()
    open_edge(index).close()


UPSERT = """
store = open_edge(Path(sys.argv[1]), verify=False)
for start in range(1, 100_000, 50):
    store.upsert(points(start, start + 49))
    print(start + 49, flush=True)
"""


def test_acknowledged_points_survive_a_kill(quick_path: Path) -> None:
    writer = run_python(UPSERT, quick_path / "index")
    assert writer.stdout is not None
    seen = [int(writer.stdout.readline()) for _ in range(8)]
    writer.kill()
    rest, _ = writer.communicate()
    acknowledged = [*seen, *(int(line) for line in rest.split("\n")[:-1])][-1]
    with open_edge(quick_path / "index", verify=False) as store:
        found = store.get([name(number) for number in range(1, acknowledged + 1)], vectors=True)
        assert [point.payload["n"] for point in found] == list(range(1, acknowledged + 1))
        assert all(point.dense is not None for point in found)
        assert nearest(store, acknowledged)[0] == name(acknowledged)


FORK = """
store = open_edge(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    refused = 0
    for use in (store.count, store.flush, store.optimize, lambda: store.upsert(points(21, 21))):
        try:
            use()
        except StoreError as error:
            refused += f"opened by process {os.getppid()} and cannot be used in its fork {os.getpid()}" in str(error)
    store.close()
    os._exit(refused)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 4, status
try:
    open_edge(Path(sys.argv[1]))
except StoreBusyError:
    pass
else:
    raise AssertionError("the child gave the lock of its parent away")
store.upsert(points(21, 21))
print(store.count())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_is_refused_and_leaves_its_parent_alone(index: Path) -> None:
    output, _ = run_python(FORK, index).communicate(timeout=60)
    assert output == "21\n"


ORPHAN = """
store = open_edge(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(quick_path: Path) -> None:
    folder = quick_path / "index"
    folder.mkdir()
    code = ORPHAN.replace("open_edge(Path(sys.argv[1]))", "IndexLock(Path(sys.argv[1]))")
    holder = run_python("import time\n" + code, folder)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    holder.wait(timeout=30)
    try:
        # The child gives its copy of the lock back as its first act, which may come after the end of its parent.
        deadline = time.monotonic() + 20
        while not _free(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        IndexLock(folder).release()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def _free(folder: Path) -> bool:
    try:
        IndexLock(folder).release()
    except StoreBusyError:
        return False
    return True


def test_a_missing_segment_is_noticed(index: Path) -> None:
    # Freshly written points come back from the log of the engine; optimized ones are in their segment only.
    with open_edge(index) as store:
        store.delete([name(20)])
        store.optimize()
        store.write_manifest(ready(store))
    for segment in (index / "generations/1/engine" / "segments").iterdir():
        shutil.rmtree(segment)
    with pytest.raises(StoreCorruptError, match=r"/segments has no \S+, which was there when it was last closed; run"):
        open_edge(index)
    unseal(index)
    lost = r"holds 0 passages, its manifest says 19; a segment file was probably deleted .*retrieval ingest --rebuild"
    with pytest.raises(StoreCorruptError, match=lost):
        open_edge(index)
    with open_edge(index, verify=False) as store, pytest.raises(StoreCorruptError, match=lost):
        store.verify()
    with open_edge(index, fresh=True) as store:
        assert (store.count(), store.read_manifest()) == (0, None)


def test_other_points_of_the_same_number_are_noticed_by_verify(index: Path) -> None:
    with open_edge(index) as store:
        store.delete([name(20)])
        store.upsert(points(21, 21))
    with open_edge(index) as store, pytest.raises(StoreCorruptError, match="holds other points than its manifest says"):
        store.verify()


def test_an_unfinished_ingest_opens(index: Path) -> None:
    with open_edge(index) as store:
        store.write_manifest({**ready(store), "state": "ingesting", "passages": 7})
    with open_edge(index) as store:
        assert store.count() == 20
        store.verify()


def test_panics_of_the_engine_become_our_error(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = list((index / "generations/1/engine" / "segments").rglob("status.dat"))
    assert damaged
    for file in damaged:
        file.write_bytes(file.read_bytes()[:3])
    with pytest.raises(StoreCorruptError, match=r"status.dat is damaged \(it has 3 bytes, and had \d+ when"):
        open_edge(index)
    unseal(index)
    with pytest.raises(StoreCorruptError, match=r"its files are damaged .*--rebuild") as caught:
        open_edge(index)
    assert type(caught.value.__cause__).__name__ == "PanicException"
    assert "panicked" in capfd.readouterr().err
    with open_edge(index, fresh=True) as store:
        assert store.count() == 0


def _remove(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.taken"))


def _write(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        _remove(path)
        path.write_bytes(data)

    return write


def _restore(path: Path) -> None:
    if path.is_file():
        path.unlink()
    path.with_name(f"{path.name}.taken").rename(path)


DAMAGES: dict[str, tuple[str, Callable[[Path], None], type[StoreError], str]] = {
    "manifest empty": ("manifest.json", _write(b""), StoreCorruptError, r"manifest.json is damaged"),
    "manifest cut": ("manifest.json", _write(b'{"passages": 2'), StoreCorruptError, "manifest.json is damaged"),
    "manifest binary": ("manifest.json", _write(b"\xff\xfe\x00"), StoreCorruptError, "manifest.json is damaged"),
    "manifest a list": ("manifest.json", _write(b"[]"), StoreCorruptError, "holds a list, not a mapping"),
    "manifest too deep": ("manifest.json", _write(b"[" * 200_000), StoreCorruptError, "manifest.json is damaged"),
    "manifest gone": ("manifest.json", _remove, StoreCorruptError, "holds 20 passages and no manifest.json"),
    "schema a word": ("manifest.json", _write(b'{"schema_version": "x"}'), StoreCorruptError, "schema_version 'x'"),
    "schema of the future": ("manifest.json", _write(b'{"schema_version": 7}'), IndexMismatchError, "schema version 7"),
    "engine gone": ("generations/1/engine", _remove, StoreCorruptError, "has a manifest and no folder .*/engine;"),
    "engine config gone": (
        "generations/1/engine/edge_config.json",
        _remove,
        StoreCorruptError,
        "has no edge_config.json",
    ),
    "engine config cut": (
        "generations/1/engine/edge_config.json",
        _write(b"{"),
        StoreCorruptError,
        "edge_config.json is damaged",
    ),
    "engine config empty": (
        "generations/1/engine/edge_config.json",
        _write(b"{}"),
        StoreCorruptError,
        "names no dense vectors",
    ),
    "settings cut": ("generations/1/store.json", _write(b'{"quant'), StoreCorruptError, "store.json is damaged"),
    "settings of something else": (
        "generations/1/store.json",
        _write(b'{"a": 1}'),
        StoreCorruptError,
        "store.json is damaged",
    ),
}


@pytest.fixture(scope="module")
def shared_index() -> Iterator[Path]:
    with quick_folder() as folder:
        with open_edge(folder / "index") as store:
            store.upsert(points(1, 20))
            store.write_manifest(ready(store))
        yield folder / "index"


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files_are_named(shared_index: Path, case: str) -> None:
    file, damage, kind, message = DAMAGES[case]
    damage(shared_index / file)
    try:
        for _ in range(2):
            with pytest.raises(kind, match=message):
                open_edge(shared_index)
    finally:
        _restore(shared_index / file)
    with open_edge(shared_index) as store:
        assert store.count() == 20


def test_lost_settings_are_made_again(index: Path) -> None:
    (index / "generations/1/store.json").unlink()
    with open_edge(index) as store:
        assert nearest(store, 3)[0] == name(3)


def test_another_vector_size_is_refused_with_both_sides(index: Path) -> None:
    with pytest.raises(IndexMismatchError, match="has vectors of 8 dimensions, the encoder gives 16;"):
        open_edge(index, dim=16)
    with open_edge(index) as store:
        assert store.count() == 20


def test_a_file_in_the_place_of_the_folder_is_refused(quick_path: Path) -> None:
    (quick_path / "index").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot make the index folder"):
        open_edge(quick_path / "index")


def test_what_a_killed_creation_left_is_cleared(quick_path: Path) -> None:
    leftover = quick_path / "index" / "generations/1/engine.new" / "segments"
    leftover.mkdir(parents=True)
    with open_edge(quick_path / "index") as store:
        store.upsert(points(1, 2))
        assert store.count() == 2
    assert not leftover.exists()


def test_nothing_is_written_to_a_nearly_full_disk(index: Path, quick_path: Path) -> None:
    greedy = settings(store={"kind": "edge", "min_free_mb": 10**9})
    with pytest.raises(StoreFullError, match=r"needs 1000000000 MiB of free disk and has \d+ MiB"):
        open_edge(quick_path / "new", greedy)
    with open_edge(index, greedy) as store:
        for write in (
            lambda: store.upsert(points(21, 30)),
            lambda: store.delete([name(1)]),
            store.optimize,
            lambda: store.set_quantization(Quantization("turbo")),
        ):
            with pytest.raises(StoreFullError, match="make room"):
                write()
        assert (store.count(), nearest(store, 5)[0], store.quantization.kind) == (20, name(5), "none")


def test_optimize_runs_in_a_process_of_its_own_under_our_lock(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = subprocess.run, []

    def run(command: list[str], **arguments: Any) -> Any:
        with pytest.raises(StoreBusyError, match="this process"):
            open_edge(index)
        seen.append(command[0])
        return real(command, **arguments)

    monkeypatch.setattr(edge_engine.subprocess, "run", run)
    with open_edge(index, settings(hnsw={"threshold": 0})) as store:
        store.upsert(points(21, 200))
        store.delete([name(2)])
        store.optimize()
        assert seen == [sys.executable]
        assert (store.count(), nearest(store, 7)[0]) == (199, name(7))
        assert nearest(store, 7, exact=True) == nearest(store, 7)
    assert list((index / "generations/1/engine" / "segments").rglob("graph.bin"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
        ("raise SystemExit('no luck')", "failed: no luck"),
    ],
    ids=["killed", "failed"],
)
def test_an_optimization_that_dies_leaves_the_index_as_it_was(
    index: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    monkeypatch.setattr(edge_engine, "_OPTIMIZE", code)
    with open_edge(index) as store:
        with pytest.raises(StoreError, match=f"{message}.*; the index is as before"):
            store.optimize()
        assert (store.count(), nearest(store, 9)[0]) == (20, name(9))


def test_an_interpreter_that_cannot_start_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with open_edge(index) as store:
        with pytest.raises(StoreError, match="cannot start /no/such/python to optimize"):
            store.optimize()
        assert store.count() == 20


def test_quantization_is_kept_changed_and_taken_back(index: Path) -> None:
    def compression() -> Any:
        return json.loads((index / "generations/1/engine" / "edge_config.json").read_text()).get("quantization_config")

    turbo = Quantization("turbo", 2, oversampling=4.0)
    with open_edge(index) as store:
        store.set_quantization(turbo)
        assert compression()["turbo"]["bits"] == "bits2"
    # An index keeps its own quantization whatever the configuration says.
    with open_edge(index, settings(quantization={"kind": "scalar"})) as store:
        assert store.quantization == turbo
        assert nearest(store, 11)[0] == name(11)
        store.set_quantization(Quantization("binary", 1, query_bits=8))
        assert (compression()["binary"]["encoding"], compression()["binary"]["query_encoding"]) == (
            "one_bit",
            "scalar8bits",
        )
        store.set_quantization(Quantization())
        assert compression() is None
    with open_edge(index) as store:
        assert (store.quantization, store.count(), compression()) == (Quantization(), 20, None)
        assert nearest(store, 11)[0] == name(11)
    assert not list(index.rglob("*.before"))


def test_a_new_index_takes_the_quantization_of_the_configuration(quick_path: Path) -> None:
    with open_edge(quick_path / "index", settings(quantization={"kind": "binary", "bits": 1.5})) as store:
        assert store.quantization == Quantization("binary", 1.5)
    config = json.loads((quick_path / "index" / "generations/1/engine" / "edge_config.json").read_text())
    assert config["quantization_config"]["binary"]["encoding"] == "one_and_half_bits"
    assert config["wal_enabled"] is True


def test_rescoring_alone_is_changed_without_a_rebuild(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_edge(index) as store:
        store.set_quantization(Quantization("turbo", 2))
        monkeypatch.setattr(edge_engine, "_OPTIMIZE", "raise SystemExit('rebuilt')")
        store.set_quantization(Quantization("turbo", 2, rescore=False))
        assert store.quantization.rescore is False


def test_a_manifest_is_the_old_or_the_new_one(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_edge(index) as store:
        before = store.read_manifest()
        with monkeypatch.context() as patch:
            patch.setattr(json_files.os, "replace", fail)
            with pytest.raises(StoreError, match=r"cannot write .*manifest\.json: No space left on device"):
                store.write_manifest({"schema_version": 1, "new": True})
        assert store.read_manifest() == before
        (index / "manifest.json.new").write_bytes(b"half of a ma")
        assert store.read_manifest() == before
        store.write_manifest({"schema_version": 1, "new": True})
        assert store.read_manifest() == {"schema_version": 1, "new": True}
    assert not (index / "manifest.json.new").exists()


def test_bm25_counts_the_living_after_an_optimization_and_a_reload(quick_path: Path) -> None:
    # 40 points share term 1, which 20 of them lose; ln((30 - 10 + 0.5) / 10.5 + 1) after ten of those are deleted.
    term, other = (SparseVector(np.array([index], np.uint32), np.ones(1, np.float32)) for index in (1, 2))
    batch = points(1, 40)
    with open_edge(quick_path / "index") as store:
        store.upsert(batch)
        store.optimize()
        store.upsert([Point(point.id, point.dense, other, {}) for point in batch[:20]])
        store.delete([point.id for point in batch[20:30]])
        assert store.search([SearchRequest(term, 1)])[0][0].score == pytest.approx(1.0826, abs=1e-4)
    with open_edge(quick_path / "index", verify=False) as store:
        assert store.search([SearchRequest(term, 1)])[0][0].score == pytest.approx(1.0826, abs=1e-4)
        store.optimize()
        assert store.search([SearchRequest(term, 1)])[0][0].score == pytest.approx(1.0826, abs=1e-4)


def test_errors_of_the_engine_keep_their_cause(index: Path) -> None:
    def refuse(shard: qdrant_edge.EdgeShard) -> None:
        raise RuntimeError("dimension error")

    with open_edge(index) as store:
        with pytest.raises(StoreError, match=r"search failed in index .*: dimension error") as caught:
            store._engine.call("search", refuse)
        assert isinstance(caught.value.__cause__, RuntimeError)
        with pytest.raises(KeyboardInterrupt):
            store._engine.call("search", lambda shard: (_ for _ in ()).throw(KeyboardInterrupt))
        assert store.count() == 20


def test_facets_of_mixed_values_are_counted_without_an_index(quick_path: Path) -> None:
    with open_edge(quick_path / "index") as store:
        values = ["1", 1, 1, True, 2.5, None]
        store.upsert([Point(name(n), None, None, {"v": value}) for n, value in enumerate(values)])
        assert store.facet("v") == [(1, 2), (True, 1), ("1", 1)]
        # The index of the first facet knows strings only; an integer that comes later is counted all the same.
        store.upsert([Point(name(n), None, None, {"w": "x"}) for n in range(10, 13)])
        assert store.facet("w") == [("x", 3)]
        store.upsert([Point(name(20), None, None, {"w": 7})])
        assert store.facet("w") == [("x", 3), (7, 1)]
        assert store.count({"must": [{"key": "w", "match": {"value": 7}}]}) == 1


def test_threads_take_turns(quick_path: Path) -> None:
    with open_edge(quick_path / "index") as store, ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(store.upsert, points(start, start + 24)) for start in range(1, 201, 25)]
        reads = [pool.submit(nearest, store, 1) for _ in range(20)]
        assert [write.result() for write in writes] == [None] * 8
        assert all(len(read.result()) <= 3 for read in reads)
        assert (store.count(), nearest(store, 150)[0]) == (200, name(150))


def test_an_unusable_batch_writes_nothing_even_when_it_is_long(index: Path) -> None:
    bad = Point(name(5000), np.full(DIM, np.nan, np.float32), None, {})
    with open_edge(index) as store:
        with pytest.raises(StoreInputError, match="point 2000"):
            store.upsert([*points(21, 2020), bad])
        assert store.count() == 20
