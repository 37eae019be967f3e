"""The embedded engine behind guards: one process, one thread at a time, every failure one of our errors."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as engine

from retrieval.config import HnswConfig
from retrieval.datatypes import Quantization
from retrieval.errors import IndexMismatchError, StoreBusyError, StoreCorruptError, StoreError, StoreFullError
from retrieval.stores.allocator import OwnHeap, return_memory
from retrieval.stores.edge_sealing import Sealing
from retrieval.stores.json_files import REMEDY, read_json, sync_folder, write_json
from retrieval.stores.system_errors import refusal_of

R = TypeVar("R")
_DYING_S, _POLL_S = 5.0, 0.02
_CONFIG = "edge_config.json"
_UNFINISHED = "temp_segments"
KEYWORDS = ("document", "document_id", "source")
# optimize() holds the GIL for its whole run, so it gets an interpreter of its own. On Linux that one ends with the
# process that waits for it (1 is PR_SET_PDEATHSIG): as an orphan it would go on holding the engine's lock.
_OPTIMIZE = """
import ctypes, json, os, signal, sys
import qdrant_edge as engine
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[2]):
    sys.exit("nobody waits for it any more")
dim, m, ef_construct = json.loads(sys.argv[3])
dense = engine.EdgeVectorParams(size=dim, distance=engine.Distance.Cosine)
config = engine.EdgeConfig(
    vectors={"dense": dense},
    sparse_vectors={"bm25": engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
    hnsw_config=engine.HnswIndexConfig(m=m, ef_construct=ef_construct, full_scan_threshold=10_000),
    optimizers=engine.EdgeOptimizersConfig(indexing_threshold=1, deleted_threshold=0.0, vacuum_min_vector_number=1),
)
shard = engine.EdgeShard.load(sys.argv[1], config)
shard.optimize()
shard.close()
"""
_BINARY = {
    1: engine.BinaryQuantizationEncoding.OneBit,
    1.5: engine.BinaryQuantizationEncoding.OneAndHalfBits,
    2: engine.BinaryQuantizationEncoding.TwoBits,
}
_QUERY = {
    None: engine.BinaryQuantizationQueryEncoding.Default,
    4: engine.BinaryQuantizationQueryEncoding.Scalar4Bits,
    8: engine.BinaryQuantizationQueryEncoding.Scalar8Bits,
}
_TURBO = {
    1: engine.TurboQuantBitSize.Bits1,
    1.5: engine.TurboQuantBitSize.Bits1_5,
    2: engine.TurboQuantBitSize.Bits2,
    4: engine.TurboQuantBitSize.Bits4,
    8: engine.TurboQuantBitSize.Bits8,
}


class Engine:
    """One shard in a folder, created when absent.

    Args:
        folder: Folder of the shard.
        place: The index that it belongs to, for messages.
        dim: Dimensions of dense vectors.
        hnsw: Settings of the graph.
        quantization: Compression of a new shard; an existing one keeps its own.
        min_free_mb: Mebibytes of disk below which nothing is written.
        sealing: The seal of the generation, to which the files must belong: the engine changes damaged ones.

    Raises:
        IndexMismatchError: The shard has vectors of another size.
        StoreCorruptError: Its files are damaged.
        StoreBusyError: Another program has the shard open, and for longer than a dying one takes to let go.
        StoreFullError: Too little disk is left to create it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        place: Path,
        dim: int,
        hnsw: HnswConfig,
        quantization: Quantization,
        min_free_mb: int,
        sealing: Sealing,
    ) -> None:
        self.folder = folder
        self._place = place
        self._dim = dim
        self._hnsw = hnsw
        self._min_free_mb = min_free_mb
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._shard: engine.EdgeShard | None = None
        self._heap = OwnHeap()
        self._sealing = sealing
        config = read_json(folder / _CONFIG)
        if config is not None:
            self._require_size(engine_dimensions(folder))
        sealing.require_whole(config)
        if config is None:
            self._create(quantization)
        else:
            self._load()

    @property
    def is_own_process(self) -> bool:
        """Whether this process has opened the shard, and is no fork of the one that has."""
        return os.getpid() == self._pid

    def call(self, action: str, use: Callable[[engine.EdgeShard], R]) -> R:
        """Run ``use`` on the shard, alone.

        Args:
            action: What is being done, for messages: ``search``.
            use: Gets the open shard.

        Raises:
            StoreError: The shard is closed, belongs to another process, or the engine failed.
            StoreCorruptError: The engine panicked, which damaged files make it do.
        """
        self.require_own_process()
        with self._lock:
            if self._shard is None:
                raise StoreError(f"index {self._place} is closed")
            with self._translated(action):
                return use(self._shard)

    def write(self, action: str, use: Callable[[engine.EdgeShard], R]) -> R:
        """Run ``use``, which changes something, on the shard, alone; the seal is lifted before.

        Raises:
            StoreError: As for `call`.
            StoreCorruptError: As for `call`, or a file is not what was sealed; nothing was written.
        """
        self.call(action, lambda shard: None)
        self._sealing.lift()
        return self._heap.run(lambda: self.call(action, use))

    def require_own_process(self) -> None:
        """Refuse an inherited handle: in a forked child the engine's threads are gone and every call would hang.

        Raises:
            StoreError: This process is a fork of the one that opened the shard.
        """
        if os.getpid() != self._pid:
            raise StoreError(
                f"index {self._place} was opened by process {self._pid} and cannot be used in its fork "
                f"{os.getpid()}; start workers with the 'spawn' method, or open the index only in the worker"
            )

    def require_disk(self, extra: int = 0) -> None:
        """Refuse to write when the disk is nearly full.

        The engine writes through memory maps, and a full disk kills the process.

        Args:
            extra: Bytes needed beyond the reserve.

        Raises:
            StoreFullError: Less than the reserve and ``extra`` is free.
        """
        free = shutil.disk_usage(self.folder.parent).free
        needed = self._min_free_mb * 2**20 + extra
        if free < needed:
            raise StoreFullError(
                f"{self._place} needs {needed // 2**20} MiB of free disk and has {free // 2**20} MiB; "
                "make room, or lower store.min_free_mb at your own risk"
            )

    def size_on_disk(self) -> int:
        """Bytes of disk that the segments take."""
        files = (file for file in (self.folder / "segments").rglob("*") if file.is_file())
        return sum(getattr(file.stat(), "st_blocks", 0) * 512 for file in files)

    def optimize(self, *, graph: bool) -> None:
        """Write all points into one segment, in a process of its own; other threads wait meanwhile.

        Args:
            graph: Whether the segment gets a graph.

        Raises:
            StoreError: The process failed; the shard is open again with what it had.
            StoreFullError: There is no room for a second copy of the segments.
        """
        self.require_own_process()
        with self._lock:
            self.require_disk(extra=self.size_on_disk())
            with self._reopened():
                self._sealing.lift()
                self._optimize_closed(graph)

    def set_quantization(self, quantization: Quantization, *, graph: bool) -> None:
        """Change how dense vectors are compressed and write all points anew.

        Args:
            quantization: The new compression.
            graph: As for `optimize`.

        Raises:
            StoreError: The rebuild failed; the shard is open again.
            StoreFullError: There is no room for a second copy of the segments.
        """
        self.require_own_process()
        with self._lock:
            self.require_disk(extra=self.size_on_disk())
            with self._reopened():
                self._sealing.lift()
                if quantization.kind == "none":
                    self._forget_quantization()
                else:
                    self._load(quantization)
                    self._close_shard()
                self._optimize_closed(graph)

    def close(self) -> None:
        """Flush and release; in a forked child the inherited handle is only forgotten."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._close_shard()
        self._heap.close()

    def settle(self) -> None:
        """Let the engine put in order what the last writes have left, after it was closed; else its next open would.

        From then on its files stay as they are until something is written.

        Raises:
            StoreError: It cannot be opened.
            StoreFullError: Too little disk is left; opening could kill the process.
        """
        with self._lock:
            # Always: after a killed process, a rebuild and a delete it has something left without a journal to show it.
            self.require_disk()
            self._load()
            self._close_shard()

    @contextlib.contextmanager
    def _reopened(self) -> Iterator[None]:
        if self._shard is None:
            raise StoreError(f"index {self._place} is closed")
        self._close_shard()
        return_memory()
        try:
            yield
        finally:
            self._load_if_closed()

    def _load_if_closed(self) -> None:
        if self._shard is None:
            self._load()

    def _create(self, quantization: Quantization) -> None:
        self.require_disk()
        if self.folder.exists():
            raise StoreCorruptError(f"{self.folder} has no {_CONFIG}; {REMEDY}")
        # Made under another name, so that a process that dies here leaves no half of an engine.
        growing = self.folder.with_name(f"{self.folder.name}.new")
        if growing.exists():
            shutil.rmtree(growing)
        with self._translated("create"):
            shard = engine.EdgeShard.create(str(growing), self._config(quantization, new=True))
            for field in KEYWORDS:
                # In memory it would be read whole whenever the index is opened: for a second at 171,000 passages.
                kind = engine.KeywordIndexParams(on_disk=True)
                shard.update(engine.UpdateOperation.create_field_index(field, kind))
            shard.close()
        growing.rename(self.folder)
        sync_folder(self.folder.parent)
        self._load()

    def _load(self, quantization: Quantization | None = None) -> None:
        deadline = time.monotonic() + _DYING_S
        while self._shard is None:
            try:
                with self._translated("open", damaged=True):
                    self._shard = engine.EdgeShard.load(str(self.folder), self._config(quantization))
            except StoreBusyError:
                # The index is locked for this process. Whoever has the engine is the child of one that was killed.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_S)
        # What an optimization that was killed has left; the lock of the engine is ours, so that none is running.
        for leftover in (self.folder / _UNFINISHED).glob("*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _close_shard(self) -> None:
        # The engine flushes as it closes.
        shard, self._shard = self._shard, None
        if shard is not None:
            with self._translated("close"):
                shard.close()

    def _require_size(self, size: int) -> None:
        if size != self._dim:
            raise IndexMismatchError(
                f"index {self._place} has vectors of {size} dimensions, the encoder gives {self._dim}; "
                "open it with the encoder that it was built with, or re-encode with 'retrieval ingest --rebuild'"
            )

    def _config(self, quantization: Quantization | None, *, new: bool = False) -> engine.EdgeConfig:
        return engine.EdgeConfig(
            vectors={"dense": engine.EdgeVectorParams(size=self._dim, distance=engine.Distance.Cosine)},
            sparse_vectors={"bm25": engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
            quantization_config=None if quantization is None else _quantization_config(quantization),
            wal_enabled=True if new else None,
            # More threads share segments out, and nearly all points are in one: handing over is all they would add.
            max_search_threads=1,
        )

    def _optimize_closed(self, graph: bool) -> None:
        package = Path(engine.__file__).parent.parent
        paths = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        order = json.dumps([self._dim, self._hnsw.m if graph else 0, self._hnsw.ef_construct])
        command = [sys.executable, "-P", "-c", _OPTIMIZE, str(self.folder), str(os.getpid()), order]
        try:
            child = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": paths},
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            raise StoreError(f"cannot start {sys.executable} to optimize index {self._place}: {error}") from error
        if child.returncode:
            reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
            how = f"was killed by signal {-child.returncode}" if child.returncode < 0 else f"failed: {reason}"
            raise StoreError(f"the process that optimized index {self._place} {how}; the index is as before, try again")

    def _forget_quantization(self) -> None:
        # The engine reads "none given" as "keep", so switching off is an edit of its configuration.
        path, backup = self.folder / _CONFIG, self.folder / f"{_CONFIG}.before"
        shutil.copy2(path, backup)
        settings = read_json(path) or {}
        settings.pop("quantization_config", None)
        write_json(path, settings, checksum=False)
        try:
            self._load()
        except StoreError:
            os.replace(backup, path)
            raise
        self._close_shard()
        backup.unlink()

    @contextlib.contextmanager
    def _translated(self, action: str, *, damaged: bool = False) -> Iterator[None]:
        place = f"index {self._place}"
        try:
            yield
        except (StoreError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
            raise
        except Exception as error:
            if "WouldBlock" in str(error):
                raise StoreBusyError(f"{place} is in use by another program") from error
            if (refusal := refusal_of(error, place)) is not None:
                raise refusal from error
            if damaged:
                raise StoreCorruptError(
                    f"{place} cannot be opened, its files are damaged ({error}); {REMEDY}"
                ) from error
            raise StoreError(f"{action} failed in {place}: {error}") from error
        except BaseException as error:
            # A Rust panic arrives as a BaseException of a class that cannot be imported.
            if type(error).__name__ != "PanicException":
                raise
            if (refusal := refusal_of(error, place)) is not None:
                raise refusal from error
            raise StoreCorruptError(f"{action} failed in {place}, its files are damaged ({error}); {REMEDY}") from error


def engine_dimensions(folder: Path) -> int:
    """Dimensions of the dense vectors of a shard.

    Raises:
        StoreCorruptError: There is none, or its configuration is damaged.
    """
    persisted = read_json(folder / _CONFIG)
    if persisted is None:
        raise StoreCorruptError(f"{folder} has no {_CONFIG}; {REMEDY}")
    try:
        return int(persisted["vectors"]["dense"]["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreCorruptError(f"{folder / _CONFIG} names no dense vectors; {REMEDY}") from error


def _quantization_config(quantization: Quantization) -> Any:
    if quantization.kind == "binary":
        return engine.BinaryQuantizationConfig(
            always_ram=True, encoding=_BINARY[quantization.bits], query_encoding=_QUERY[quantization.query_bits]
        )
    if quantization.kind == "turbo":
        return engine.TurboQuantQuantizationConfig(always_ram=True, bits=_TURBO[quantization.bits])
    if quantization.kind == "scalar":
        return engine.ScalarQuantizationConfig(type=engine.ScalarType.Int8, always_ram=True)
    return None
