"""Systems in processes of their own, asked one at a time: none shares memory, threads or imports with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.bench.figures import Taken

ROOT = Path(__file__).parents[2]

# No system may look for models anywhere but on the disk, and none may warn about the forks of another.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "PYTHONPATH": str(ROOT),
}


def environment_of_all() -> dict[str, str]:
    """Of each process that is measured.

    Nothing is downloaded. Installed packages come with their bytecode; what runs before anything is timed writes it for
    these sources, also where the environment says not to.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | OFFLINE


class SystemFailedError(Exception):
    """A system could not be started, or a call of it failed; the text says what it said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call gave.

    Args:
        seconds: Wall-clock time of the call, without the exchange with its process.
        cpu_seconds: Processor time of it, over all its threads and the processes that it started.
        peak_mb: Most memory that the process has held until now, MB.
        value: What the call returned, as JSON.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    value: Any

    @property
    def taken(self) -> Taken:
        """Both times in seconds."""
        return Taken(self.seconds, self.cpu_seconds)


class Worker:
    """A system in a process of its own; a context manager that ends the process.

    Args:
        module: Its ``open_system(**settings)`` makes the system.
        settings: Passed on as JSON.
        python: Interpreter of the environment; this one by default.
        environment: Variables besides those of this process and of `OFFLINE`.

    Attributes:
        last: The last answer, at first that of opening the system.

    Raises:
        SystemFailedError: It could not be started.
    """

    def __init__(
        self,
        module: str,
        settings: Mapping[str, Any],
        *,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.module = module
        command = [str(python), "-m", "benchmarks.bench.serve", module, json.dumps(dict(settings))]
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,  # a file: a pipe that nobody reads fills up and stops the system
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env={**environment_of_all(), **(environment or {})},
        )
        try:
            self.last = self._read()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, call: str, **arguments: Any) -> Answer:
        """Call a method of the system and wait.

        Raises:
            SystemFailedError: The method raised, or the process ended.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: reading says why
            self._process.stdin.write(json.dumps({"call": call, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
        self.last = self._read()
        return self.last

    def _read(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemFailedError(f"{self.module} ended: {self._last_words()}")
        record = json.loads(line)
        error = record.pop("error")
        if error is not None:
            raise SystemFailedError(f"{self.module}: {error}")
        return Answer(**record)

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def close(self) -> None:
        """End the process; nothing happens when it has ended."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            with suppress(BrokenPipeError):  # what was still to be said, to a process that has ended
                stream.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
