"""A Ray cluster, and its workers that write the parts of a source."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pipelines.ray_ingest.worker import IndexState, PartReport, PartWorker
from retrieval import errors
from retrieval.documents import Part
from retrieval.errors import ConfigError, MissingExtraError, RetrievalError, StoreError

ATTEMPTS = 4
"""How often a part is tried before the run fails: a part can be what kills its worker."""

_CONNECT_S = 10.0
# Only parts and reports go through it, and its default is a third of the memory.
_OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connect this process to a Ray cluster for the time of the block; one that is connected stays so.

    Args:
        address: ``local`` starts a cluster on this machine, ``auto`` takes the one that runs here, ``HOST:6379`` and
            ``ray://HOST:10001`` one elsewhere.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: It cannot be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "ingest on a cluster") from error
    if ray.is_initialized():
        yield
        return
    if address not in {"local", "auto"}:
        _require_listener(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address == "local":
        # Nothing of a cluster of our own is told to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot join a Ray cluster at {address!r}: {error}; start one, or use 'local'") from error
    # It tells of every run that it starts; what fails is raised here.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself tries for minutes to reach an address where nobody listens.

    Raises:
        ConfigError: It is no address, or nobody listens there.
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        if parts.scheme != "ray" or not parts.hostname or not parts.port:
            raise ValueError("an address is local, auto, HOST:6379 or ray://HOST:10001")
        socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot reach a Ray cluster at {address!r}: {error}") from error


def written(parts: Sequence[Part], state: IndexState, workers: int | None) -> Iterator[PartReport]:
    """Let the workers write all parts.

    Yields:
        Reports in the order in which they come, of some parts maybe twice.
    """
    if not parts:
        return
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    cpus = int(ray.cluster_resources().get("CPU", 1))
    size = max(1, min(workers or cpus, len(parts)))
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
    rows = [{"part": pickle.dumps(part)} for part in parts]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Writes,
        fn_constructor_args=(pickle.dumps(state), attempts),
        compute=ActorPoolStrategy(size=size),
        num_cpus=1,
    )
    try:
        for row in dataset.iter_rows():
            yield _opened(row["report"])
    except RayError as error:
        raise StoreError(f"Ray gave up: {error}; what was written stays, run the ingest again") from error


class _Attempts:
    """Counts how often each part was begun. Ray itself tries again for ever where a part kills its worker."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, part: int) -> int:
        """Note an attempt and return its number, from 1."""
        self._begun[part] += 1
        return self._begun[part]


class _Writes:
    """What Ray starts in a worker process.

    Args:
        state: A pickled `IndexState`.
        attempts: Handle of the `_Attempts`.
    """

    def __init__(self, state: bytes, attempts: Any) -> None:
        self._state = state
        self._attempts = attempts
        self._worker: PartWorker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        import ray

        part: Part = pickle.loads(row["part"])
        # Errors of ours travel as rows: Ray would put its own text around them.
        try:
            if ray.get(self._attempts.begin.remote(part.number)) > ATTEMPTS:
                raise StoreError(
                    f"{part.files[0][0]} or what comes with it has killed {ATTEMPTS} workers, perhaps for memory; "
                    "leave it out and run the ingest again: what was written stays"
                )
            if self._worker is None:
                self._worker = PartWorker(pickle.loads(self._state))
            return {"report": pickle.dumps(self._worker.write(part))}
        except RetrievalError as error:
            return {"report": pickle.dumps((type(error).__name__, f"worker on {platform.node()}: {error}"))}


def _opened(packed: bytes) -> PartReport:
    report = pickle.loads(packed)
    if isinstance(report, PartReport):
        return report
    name, message = report
    kind = getattr(errors, name, StoreError)
    raise (StoreError if kind is MissingExtraError else kind)(message)
