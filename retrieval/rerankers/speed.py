"""How long this machine reads a pair of so many tokens: measured once, kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from retrieval.telemetry import refuse_telemetry

_logger = logging.getLogger(__name__)

_LENGTHS = (16, 64, 128, 256)
_REPEATS = 3
_MOST_MS = 600_000.0


@dataclass(frozen=True, slots=True)
class ReadingSpeed:
    """Milliseconds for a pair, by its tokens, while every worker is busy.

    Args:
        tokens: Lengths that were measured, rising.
        milliseconds: For a pair of each length, above 0.

    Raises:
        ValueError: The numbers are none, not finite or out of order.
    """

    tokens: tuple[int, ...]
    milliseconds: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(before < after for before, after in pairwise(self.tokens))
        usable = all(math.isfinite(one) and 0 < one <= _MOST_MS for one in self.milliseconds)
        if not (
            self.tokens and len(self.tokens) == len(self.milliseconds) and self.tokens[0] > 0 and rising and usable
        ):
            raise ValueError(f"{self.tokens} tokens and {self.milliseconds} milliseconds are no measured speed")

    def of(self, tokens: int) -> float:
        """Milliseconds for a pair of so many tokens: straight lines between the lengths, in proportion beyond them."""
        if tokens <= self.tokens[0]:
            return self.milliseconds[0] * tokens / self.tokens[0]
        if tokens >= self.tokens[-1]:
            return self.milliseconds[-1] * tokens / self.tokens[-1]
        return float(np.interp(tokens, self.tokens, self.milliseconds))


def known_speed(model: str, workers: int, longest: int, measure: Callable[[int], float]) -> ReadingSpeed:
    """The speed of this machine: from the user's cache, or measured and put there.

    A file that cannot be read or is damaged is measured anew; where it cannot be written, nothing is kept.

    Args:
        model: Digest of the model.
        workers: Pairs that are read side by side.
        longest: Tokens of the longest pair.
        measure: Milliseconds for a pair of so many tokens, while every worker is busy.
    """
    path = _file(model, workers, longest)
    if path is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads(path.read_text(encoding="utf-8"))
            return ReadingSpeed(
                tuple(int(one) for one in content["tokens"]), tuple(float(one) for one in content["milliseconds"])
            )
    speed = _measured(longest, measure)
    if path is not None:
        try:
            _write(path, speed)
        except OSError as error:
            _logger.info("the reading speed of this machine cannot be kept in %s: %s", path, error)
    return speed


def user_cache() -> Path | None:
    """Folder of the user's cache for this project, ``None`` for nobody's; it need not exist."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            named = Path(os.environ.get("XDG_CACHE_HOME", ""))
            base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "two-stage-retrieval"


def _measured(longest: int, measure: Callable[[int], float]) -> ReadingSpeed:
    lengths = sorted({min(length, longest) for length in _LENGTHS})
    measure(lengths[0])  # the first run of a model sets things up
    times = [statistics.median(measure(length) for _ in range(_REPEATS)) for length in lengths]
    return ReadingSpeed(tuple(lengths), tuple(max(one, 1e-3) for one in times))


def _file(model: str, workers: int, longest: int) -> Path | None:
    folder = user_cache()
    if folder is None:
        return None
    parts = (model, str(workers), str(longest), _processor(), _runtime())
    return folder / f"reading-speed-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:20]}.json"


def _write(path: Path, speed: ReadingSpeed) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"tokens": speed.tokens, "milliseconds": speed.milliseconds})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="reading-speed-", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        wanted = ("model name", "cpu family", "model\t", "stepping")
        return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    return f"{platform.machine()} {platform.processor()}"


def _runtime() -> str:
    refuse_telemetry()
    import onnxruntime

    return str(onnxruntime.__version__)


def together(milliseconds: Sequence[float], workers: int) -> float:
    """Milliseconds until the last of some pairs is read, the longest begun first, by workers side by side."""
    busy = [0.0] * workers
    for one in sorted(milliseconds, reverse=True):
        busy[busy.index(min(busy))] += one
    return max(busy)
