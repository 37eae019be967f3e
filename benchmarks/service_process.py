"""The service as a process of its own, what it costs, and wrk against it; for the benchmarks of the service."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).parent.parent
_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
# Bodies are formatted once; a random wait before each request makes arrivals that do not depend on the answers, as
# long as most connections are idle.
_LUA = """
local formatted, at, mean = {}, 0, tonumber(os.getenv("DELAY_MS"))
math.randomseed(7)
function init(args)
  local headers = {["Content-Type"] = "application/json"}
  for body in io.lines(os.getenv("BODIES")) do
    formatted[#formatted + 1] = wrk.format("POST", nil, headers, body)
  end
end
function request()
  at = at % #formatted + 1
  return formatted[at]
end
if mean > 0 then
  function delay() return math.floor(-mean * math.log(1 - math.random()) + 0.5) end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nJSON {"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p95_ms":%.3f,' ..
    '"p99_ms":%.3f,"max_ms":%.3f,"not_2xx":%d,"failed":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class Process:
    """A server process; ready when the block begins, ended with SIGTERM at its end.

    Args:
        command: What to run; ``{port}`` stands for a free port.
        ready: Path that answers 200 when it is ready.
        environment: Added to this process's.
    """

    def __init__(self, command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [part.replace("{port}", str(self.port)) for part in command]
        self._ready = ready
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGTERM)
        self._log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 60) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen(
            self.command, cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL, stderr=self._log
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx.get(self.url + self._ready, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        self._process.kill()
        raise RuntimeError(f"{' '.join(self.command)} did not become ready: {self.log()[-2000:]}")

    def end(self, how: signal.Signals, seconds: float = 60) -> int:
        """Send a signal and wait; the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(seconds)

    def log(self) -> str:
        """What it has logged so far."""
        self._log.flush()
        return os.pread(self._log.fileno(), 2**28, 0).decode("utf-8", "replace")

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def sockets(self) -> int:
        """Open sockets."""
        count = 0
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(path).startswith("socket:")
        return count

    def metrics(self) -> dict[str, float]:
        """The samples of ``/metrics`` by their names with labels."""
        page = httpx.get(self.url + "/metrics").text
        return {name: float(value) for name, value in _SAMPLE.findall(page)}


def serve(index: Path, *options: str, **environment: str) -> Process:
    """`retrieval serve` over an index, with its defaults.

    Args:
        index: Folder of an embedded index.
        options: Further options of the command.
        environment: Added to this process's.
    """
    command = (sys.executable, "-m", "pipelines", "serve", "--index", str(index), "--port", "{port}", *options)
    return Process(command, "/ready", environment)


PATIENT = ("--set", "service.timeouts.header=600", "--set", "service.timeouts.keep_alive=600")
"""Options of `serve` for connections of wrk that wait before they ask: the service would end those that say nothing."""


def about() -> dict[str, Any]:
    """The circumstances of a run."""
    packages = ("uvicorn", "uvloop", "httptools", "fastapi", "orjson", "numpy", "onnxruntime")
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


@dataclass(frozen=True, slots=True)
class Load:
    """One run of wrk against a path.

    Args:
        path: Path that is asked.
        bodies: JSON bodies, sent one after the other, round and round.
        connections: Connections that are open.
        seconds: How long.
        delay_ms: Mean of the random wait of each connection before each request; 0 to ask again at once.
    """

    path: str
    bodies: Sequence[Any]
    connections: int
    seconds: float
    delay_ms: float = 0.0


def wrk(process: Process, load: Load) -> dict[str, Any]:
    """Run wrk on one thread; its numbers, the server's CPU time, the load of the machine, and what wrk printed."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script, bodies = Path(folder) / "requests.lua", Path(folder) / "bodies.jsonl"
        script.write_text(_LUA, encoding="utf-8")
        bodies.write_text("".join(json.dumps(body) + "\n" for body in load.bodies), encoding="utf-8")
        command = [program, "-t1", f"-c{load.connections}", f"-d{load.seconds:g}s", "--latency", "--timeout", "30s"]
        before, started = process.cpu_seconds(), time.monotonic()
        run = subprocess.run(
            [*command, "-s", str(script), process.url + load.path],
            env={**os.environ, "BODIES": str(bodies), "DELAY_MS": str(load.delay_ms)},
            check=True,
            capture_output=True,
            text=True,
        )
        spent, seconds = process.cpu_seconds() - before, time.monotonic() - started
    text, _, found = run.stdout.rpartition("JSON ")
    numbers: dict[str, Any] = json.loads(found)
    return {
        **numbers,
        "requests_s": numbers["requests"] / numbers["seconds"],
        "server_cpu_us": spent / max(1, numbers["requests"]) * 1e6,
        "server_cores": spent / seconds,
        "load_average": os.getloadavg()[0],
        "raw": f"$ {' '.join(command)} -s requests.lua {load.path}  (delay {load.delay_ms:g} ms)\n{text.strip()}",
    }
