"""One target in a process of its own: ``python -m benchmarks.fuzz.child TARGET FOLDER --seconds N``.

It can die of what it is fed; the parent reads from a small shared file how many cases it had by then. What a target
raises is written down, once for each place it comes from, and does not end it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import mmap
import resource
import signal
import struct
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from benchmarks.fuzz.engines import ENGINES, MEMORY_MB, run_atheris, run_hypothesis
from benchmarks.fuzz.target import Target

COUNTS = "counts"
INPUT_BYTES = 64 * 1024
_MEMORY = Path("/dev/shm")


class TooLongError(BaseException):
    """One case took longer than its target may."""


class Recorder:
    """Calls a target, counts, and writes down what it raises.

    Args:
        check: The target.
        folder: For ``counts`` and ``findings``.
        seconds: A case that takes longer is interrupted; 0 for libFuzzer, which does that itself.
    """

    def __init__(self, check: Callable[[bytes], None], folder: Path, *, seconds: int) -> None:
        self._check = check
        self._folder = folder / "findings"
        self._folder.mkdir(exist_ok=True)
        self._seconds = seconds
        self._cases = 0
        path = folder / COUNTS
        path.write_bytes(bytes(16 + INPUT_BYTES))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)

    def __call__(self, data: bytes) -> None:
        self._cases += 1
        self._shared[:16] = struct.pack("<QQ", self._cases, len(data))
        self._shared[16 : 16 + len(data)] = data
        if self._seconds:  # the alarm of libFuzzer stays as it is
            signal.alarm(self._seconds)
        try:
            self._check(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._note(data, error)
        finally:
            if self._seconds:
                signal.alarm(0)

    def _note(self, data: bytes, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/retrieval/" in frame.filename or "/pipelines/" in frame.filename]
        place = (ours or frames)[-1]
        where = f"{Path(place.filename).name}:{place.name}"
        words = str(error).split(":")[0][:60] if isinstance(error, AssertionError) else ""
        key = hashlib.sha256(f"{type(error).__name__} {where} {words}".encode("utf-8", "replace")).hexdigest()[:12]
        path = self._folder / f"{key}.json"
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            before["times"] += 1
            if before["times"] < 1_000 or before["times"] % 1_000 == 0:
                path.write_text(json.dumps(before, indent=1), encoding="utf-8")
            return
        record = {
            "error": type(error).__name__,
            "message": str(error)[:2_000],
            "place": where,
            "times": 1,
            "data": base64.b64encode(data).decode(),
            "traceback": "".join(traceback.format_exception(error))[-6_000:],
        }
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise TooLongError("the case took too long")


def _limit_memory() -> None:
    """No more address space than there is now and `MEMORY_MB`: what wants more gets a MemoryError."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_MB * 2**20, resource.RLIM_INFINITY))


def _targets(engine: str, module: str | None) -> list[Target]:
    from benchmarks.fuzz.catalogue import INSTRUMENTED, targets

    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=list(INSTRUMENTED)):
            return list(targets(module))
    return list(targets(module))


def main() -> None:
    """Feed one target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--module", help="where the target is; without it all are looked through")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, default="hypothesis")
    parser.add_argument("--input", type=Path, help="one input, instead of fuzzing; its error is shown")
    arguments = parser.parse_args()
    (target,) = [each for each in _targets(arguments.engine, arguments.module) if each.name == arguments.target]
    folder: Path = arguments.folder
    for name in ("corpus", "seeds", "artifacts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
        check = target.open(Path(stack.enter_context(place)), stack)
        if arguments.input is not None:
            check(arguments.input.read_bytes())
            return
        seeds = [seed[: target.longest] for seed in target.seeds()]
        for seed in seeds:
            (folder / "seeds" / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
        atheris = arguments.engine == "atheris"
        recorder = Recorder(check, folder, seconds=0 if atheris else target.slow)
        _limit_memory()
        if atheris:
            run_atheris(recorder, folder, arguments.seconds, arguments.seed, target)
        else:
            signal.signal(signal.SIGALRM, _interrupt)
            run_hypothesis(recorder, seeds, arguments.seconds, arguments.seed, target.longest)


if __name__ == "__main__":
    main()
