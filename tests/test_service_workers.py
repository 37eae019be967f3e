"""Bounded workers, the pipeline in use and its replacement, and jobs that outlive a process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import TwoStagePipeline
from pipelines.service.auth import ANONYMOUS, Keys
from pipelines.service.context import Principal, RequestContext
from pipelines.service.core import Service
from pipelines.service.errors import ServiceError
from pipelines.service.holder import PipelineHolder
from pipelines.service.job import Job
from pipelines.service.limits import ClientGoneError
from pipelines.service.spool import Spool, Upload
from pipelines.service.uploads import Kind
from pipelines.service.workers import WorkerPool
from retrieval.datatypes import Document
from retrieval.errors import StoreBusyError
from tests.service_app import service_config, small_config


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(1, 2)
    yield pool
    pool.close()


class Gate:
    """Work that says when it has begun and waits to be let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.go.wait(30)
        return "done"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_full_queue_refuses_and_says_when_to_return(pool: WorkerPool) -> None:
    async def run() -> None:
        gate = Gate()
        waiting = [asyncio.create_task(pool.submit(gate, deadline=soon())) for _ in range(3)]
        await until(gate.begun.is_set)
        assert (pool.pending, pool.waiting, pool.saturated) == (3, 2, True)
        with pytest.raises(ServiceError) as caught:
            await pool.submit(gate, deadline=soon())
        assert (caught.value.status_code, caught.value.code) == (429, "queue_full")
        assert int((caught.value.headers or {})["Retry-After"]) >= 1
        assert pool.pending == 3
        gate.go.set()
        assert await asyncio.gather(*waiting) == ["done"] * 3
        await until(lambda: pool.pending == 0)
        assert await pool.submit(lambda: "room again", deadline=soon()) == "room again"

    asyncio.run(run())


def test_who_waits_too_long_leaves_the_queue_and_is_never_begun(pool: WorkerPool) -> None:
    async def run() -> None:
        gate, late = Gate(), Gate()
        late.go.set()
        running = asyncio.create_task(pool.submit(gate, deadline=soon()))
        await until(gate.begun.is_set)
        with pytest.raises(ServiceError) as caught:
            await pool.submit(late, deadline=soon(0.05))
        assert (caught.value.status_code, caught.value.code) == (503, "queue_timeout")
        assert "Retry-After" in (caught.value.headers or {})
        await until(lambda: pool.pending == 1)
        gate.go.set()
        assert await running == "done"
        assert await pool.submit(lambda: 1, deadline=soon()) == 1
        assert not late.begun.is_set()

    asyncio.run(run())


def test_a_call_that_takes_too_long_keeps_its_thread_until_it_returns(pool: WorkerPool) -> None:
    async def run() -> None:
        gate = Gate()
        with pytest.raises(ServiceError) as caught:
            await pool.submit(gate, deadline=soon(0.1))
        assert (caught.value.status_code, caught.value.code) == (504, "timeout")
        assert gate.begun.is_set()
        assert pool.pending == 1
        gate.go.set()
        await until(lambda: pool.pending == 0)
        assert await pool.submit(lambda: "free", deadline=soon()) == "free"

    asyncio.run(run())


def test_what_a_call_raises_comes_back_even_when_it_is_a_timeout(pool: WorkerPool) -> None:
    def fail() -> None:
        raise TimeoutError("of the store")

    async def run() -> None:
        with pytest.raises(TimeoutError, match="of the store"):
            await pool.submit(fail, deadline=soon())
        await until(lambda: pool.pending == 0)

    asyncio.run(run())


def test_work_of_the_service_itself_is_not_refused(pool: WorkerPool) -> None:
    async def run() -> None:
        gate = Gate()
        waiting = [asyncio.create_task(pool.submit(gate, deadline=soon())) for _ in range(3)]
        own = asyncio.create_task(pool.submit(lambda: "own", deadline=None))
        await until(gate.begun.is_set)
        gate.go.set()
        assert await own == "own"
        await asyncio.gather(*waiting)

    asyncio.run(run())


def test_after_the_end_nothing_is_taken(pool: WorkerPool) -> None:
    async def run() -> None:
        pool.close()
        with pytest.raises(ServiceError) as caught:
            await pool.submit(lambda: 1, deadline=soon())
        assert caught.value.status_code == 503

    asyncio.run(run())


@pytest.fixture
def pipeline(tmp_path: Path) -> TwoStagePipeline:
    pipeline = TwoStagePipeline.open(tmp_path / "index", small_config())
    pipeline.ingest([Document("old", "copper pipe")])
    return pipeline


class Closing:
    """Counts how often a pipeline is closed."""

    def __init__(self, pipeline: TwoStagePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        close = pipeline.close

        def counted() -> None:
            self.count += 1
            close()

        monkeypatch.setattr(pipeline, "close", counted)


def test_a_replaced_pipeline_is_closed_when_its_last_user_has_left(
    pipeline: TwoStagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = TwoStagePipeline.open(tmp_path / "other", small_config())
    before, after = Closing(pipeline, monkeypatch), Closing(other, monkeypatch)
    holder = PipelineHolder(pipeline)
    with holder.use() as first:
        with holder.use():
            holder.replace(other)
            with holder.use() as second:
                assert second is other
            assert before.count == 0
        assert first.search("copper", 1)[0].document_id == "old"
        assert before.count == 0
    assert (before.count, after.count) == (1, 0)
    holder.close()
    assert (before.count, after.count) == (1, 1)


def test_one_that_nobody_uses_is_closed_at_once(
    pipeline: TwoStagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = Closing(pipeline, monkeypatch)
    other = TwoStagePipeline.open(tmp_path / "other", small_config())
    holder = PipelineHolder(pipeline)
    holder.replace(other, close_before=lambda: None)
    assert closing.count == 0
    pipeline.close()
    holder.close()


def test_a_request_whose_client_has_gone_is_taken_out_of_the_queue(pipeline: TwoStagePipeline) -> None:
    async def run() -> None:
        service = Service(pipeline, service_config(workers=1), Keys([]))
        gate, abandoned = Gate(), Gate()
        abandoned.go.set()
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        running = asyncio.create_task(service.run(lambda _: gate(), RequestContext("1", soon())))
        await until(gate.begun.is_set)
        context = RequestContext("2", soon(), receive=receive)
        waiting = asyncio.create_task(service.run(lambda _: abandoned(), context))
        await until(lambda: service.pool.pending == 2)
        gone.set()
        with pytest.raises(ClientGoneError):
            await waiting
        await until(lambda: service.pool.pending == 1)
        gate.go.set()
        await running
        await service.close()
        assert not abandoned.begun.is_set()

    asyncio.run(run())


def lines(*ids: str) -> bytes:
    return b"".join(json.dumps({"id": name, "text": f"text of {name}"}).encode() + b"\n" for name in ids)


def taking(data: bytes) -> Callable[[Upload], Any]:
    async def take(upload: Upload) -> Kind:
        with upload.create("documents.ndjson") as file:
            file.write(data)
        return "documents"

    return take


async def finished(job: Job) -> None:
    async with asyncio.timeout(60):
        while not job.over:
            await job.wait_beyond(job.version)


def documents_of(index: Path) -> int:
    with TwoStagePipeline.open(index, small_config()) as pipeline:
        return pipeline.manifest.documents


def test_jobs_that_wait_are_taken_up_by_the_next_process(pipeline: TwoStagePipeline, tmp_path: Path) -> None:
    async def before() -> list[str]:
        service = Service(pipeline, service_config(), Keys([]))
        # Not started: as if the process had died before it came to them.
        jobs = [await service.jobs.receive(ANONYMOUS, taking(lines("a", "b"))) for _ in range(2)]
        service.jobs.spool.close()
        pipeline.close()
        return [job.id for job in jobs]

    async def after(ids: list[str]) -> None:
        again = TwoStagePipeline.open(tmp_path / "index", small_config())
        service = Service(again, service_config(), Keys([]))
        service.jobs.start()
        jobs = [service.jobs.get(name, ANONYMOUS) for name in ids]
        for job in jobs:
            await finished(job)
        assert [(job.state, job.report and job.report["added"], job.attempts) for job in jobs] == [
            ("done", 2, 1),
            ("done", 0, 1),
        ]
        assert [sorted(path.name for path in (service.jobs.spool.root / name).iterdir()) for name in ids] == [
            ["job.json"],
            ["job.json"],
        ]
        await service.close()

    asyncio.run(after(asyncio.run(before())))
    assert documents_of(tmp_path / "index") == 3


def test_a_finished_job_is_still_known_after_a_restart_and_not_done_again(
    pipeline: TwoStagePipeline, tmp_path: Path
) -> None:
    async def run(first: bool, name: str = "") -> str:
        opened = pipeline if first else TwoStagePipeline.open(tmp_path / "index", small_config())
        service = Service(opened, service_config(), Keys([]))
        service.jobs.start()
        if first:
            job = await service.jobs.receive(Principal("key", frozenset(), "a"), taking(lines("x")))
            await finished(job)
        else:
            job = service.jobs.get(name, Principal("key", frozenset(), "a"))
            assert (job.state, job.attempts, job.tenant) == ("done", 1, "a")
            assert job.report is not None
            assert job.report["added"] == 1
            with pytest.raises(ServiceError):
                service.jobs.get(name, Principal("other", frozenset(), "b"))
        await service.close()
        return job.id

    asyncio.run(run(False, asyncio.run(run(True))))


def test_a_job_that_the_end_interrupts_goes_on_after_it(pipeline: TwoStagePipeline, tmp_path: Path) -> None:
    ids = [f"doc-{number}" for number in range(2000)]

    async def before() -> str:
        service = Service(pipeline, service_config(timeouts={"drain": 0.001}), Keys([]))
        service.jobs.start()
        job = await service.jobs.receive(ANONYMOUS, taking(lines(*ids)))
        await until(lambda: job.progress is not None)
        service.drain()
        await service.close()
        assert (job.state, job.report) == ("queued", None)
        return job.id

    async def after(name: str) -> None:
        again = TwoStagePipeline.open(tmp_path / "index", small_config())
        assert again.manifest.state == "ready"
        assert 1 < again.manifest.documents < 2001
        service = Service(again, service_config(), Keys([]))
        service.jobs.start()
        job = service.jobs.get(name, ANONYMOUS)
        await finished(job)
        assert job.report is not None
        assert job.report["added"] + job.report["unchanged"] == 2000
        assert job.report["unchanged"] > 0
        await service.close()

    asyncio.run(after(asyncio.run(before())))
    assert documents_of(tmp_path / "index") == 2001


def test_a_job_that_ends_the_process_again_and_again_is_given_up(pipeline: TwoStagePipeline, tmp_path: Path) -> None:
    async def run() -> None:
        service = Service(pipeline, service_config(), Keys([]))
        job = await service.jobs.receive(ANONYMOUS, taking(lines("x")))
        record = service.jobs.spool.root / job.id / "job.json"
        # What the record says when the process died three times in the middle of it.
        record.write_text(json.dumps({**job.record(), "state": "running", "attempts": 3}), encoding="utf-8")
        service.jobs.start()
        later = service.jobs.get(job.id, ANONYMOUS)
        assert later is not job
        await finished(later)
        assert (later.state, later.error and later.error["code"]) == ("failed", "gave_up")
        await service.close()

    asyncio.run(run())


def test_uploads_that_never_ended_and_broken_records_are_erased(pipeline: TwoStagePipeline, tmp_path: Path) -> None:
    root = tmp_path / "index" / "uploads"
    (root / ("a" * 32) / "0").mkdir(parents=True)
    (root / ("a" * 32) / "0" / "half.ndjson").write_bytes(b"{")
    (root / ("b" * 32)).mkdir()
    (root / ("b" * 32) / "job.json").write_bytes(b"\0\1")
    (root / ("c" * 32)).mkdir()
    (root / ("c" * 32) / "job.json").write_text('{"id": "c"}', encoding="utf-8")

    async def run() -> None:
        service = Service(pipeline, service_config(), Keys([]))
        service.jobs.start()
        assert service.jobs.waiting == 0
        await service.close()

    asyncio.run(run())
    assert not (root / ("a" * 32)).exists()
    assert not (root / ("b" * 32)).exists()


def test_too_many_jobs_and_too_little_disk_are_refused_before_the_body(pipeline: TwoStagePipeline) -> None:
    async def untouched(upload: Upload) -> Kind:
        raise AssertionError("the body was read")

    async def run() -> None:
        service = Service(pipeline, service_config(jobs={"queue": 2}), Keys([]))
        for _ in range(2):
            await service.jobs.receive(ANONYMOUS, taking(lines("x")))
        with pytest.raises(ServiceError) as caught:
            await service.jobs.receive(ANONYMOUS, untouched)
        assert (caught.value.status_code, caught.value.code) == (429, "jobs_full")
        assert "Retry-After" in (caught.value.headers or {})
        await service.close()

    async def without_disk(again: TwoStagePipeline) -> None:
        service = Service(again, service_config(jobs={"min_free_mb": 2**40}), Keys([]))
        with pytest.raises(ServiceError) as caught:
            await service.jobs.receive(ANONYMOUS, untouched)
        assert (caught.value.status_code, caught.value.code) == (507, "disk_full")
        await service.close()

    asyncio.run(run())
    asyncio.run(without_disk(TwoStagePipeline.open(Path(pipeline.store.location), small_config())))


def test_finished_jobs_are_forgotten_in_time(pipeline: TwoStagePipeline) -> None:
    async def run() -> None:
        service = Service(pipeline, service_config(jobs={"kept": 2}), Keys([]))
        service.jobs.start()
        jobs = []
        for number in range(4):
            job = await service.jobs.receive(ANONYMOUS, taking(lines(str(number))))
            await finished(job)
            jobs.append(job)
        await until(lambda: len([path for path in service.jobs.spool.root.iterdir() if path.is_dir()]) == 2)
        with pytest.raises(ServiceError, match="long ago"):
            service.jobs.get(jobs[0].id, ANONYMOUS)
        assert service.jobs.get(jobs[3].id, ANONYMOUS) is jobs[3]
        await service.close()

    asyncio.run(run())


def test_two_services_do_not_share_a_folder_of_uploads(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "uploads")
    with pytest.raises(StoreBusyError, match=r"service\.jobs\.spool"):
        Spool(tmp_path / "uploads")
    spool.close()
    Spool(tmp_path / "uploads").close()
