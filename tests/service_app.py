"""The service over a small real index: in a thread of the test, or as the process that people start."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig
from retrieval.config import Config, parse_config
from retrieval.datatypes import Document
from tests.service_thread import running

READ = "read-key-0123456789abcdef"
WRITE = "write-key-0123456789abcdef"
ADMIN = "admin-key-0123456789abcdef"
KEYS = {"TEST_READ_KEY": READ, "TEST_WRITE_KEY": WRITE, "TEST_ADMIN_KEY": ADMIN}
KEY_CONFIG = [
    {"env": "TEST_READ_KEY", "scopes": ["read"]},
    {"env": "TEST_WRITE_KEY", "scopes": ["read", "write"]},
    {"env": "TEST_ADMIN_KEY", "scopes": ["admin"]},
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def small_config(**sections: Any) -> Config:
    """Settings that need little disk, so that tests run on any machine."""
    return parse_config({"store": {"min_free_mb": 0}, **sections})


def service_config(**values: Any) -> ServiceConfig:
    """Settings of a service that logs no requests and needs little disk."""
    jobs = {"min_free_mb": 0, **values.pop("jobs", {})}
    limits = {"upload_bytes": 4 * 2**20, **values.pop("limits", {})}
    return ServiceConfig.model_validate({"access_log": False, "jobs": jobs, "limits": limits, **values})


@contextmanager
def client_of(
    index: Path, documents: Sequence[Document] = (), config: ServiceConfig | None = None, settings: Config | None = None
) -> Iterator[httpx.Client]:
    """A client of a service in a thread, over an index that holds some documents."""
    pipeline = TwoStagePipeline.open(index, settings or small_config())
    if documents:
        pipeline.ingest(documents)
    with running(pipeline, config or service_config()) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


class Process:
    """`retrieval serve` as people start it, on a free port.

    Args:
        index: Folder of the index.
        options: Further options of the command.
        environment: Set for the process besides ``PATH`` and the like.
        errors: File for its stderr.
    """

    def __init__(
        self, index: Path, *options: object, errors: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        import os

        self.errors = errors
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "pipelines", "serve", "--port", "0", "--json", "--index"]
                + [str(index), "--set", "store.min_free_mb=0", "--set", "service.jobs.min_free_mb=0"]
                + [str(option) for option in options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        try:
            self.started = self._started()
        except BaseException:
            self.kill()
            raise
        self.url: str = self.started["url"]
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def _started(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the service did not start: {self.errors.read_text(encoding='utf-8')[-2000:]}")
            text += line
        started: dict[str, Any] = json.loads(text)
        return started

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(timeout=60)
        finally:
            self._close()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def _close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def log_lines(self) -> list[dict[str, Any]]:
        """What it has logged, line by line."""
        lines = self.errors.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
