"""What makes the inputs: atheris, or hypothesis where it is not installed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.fuzz.target import Target

MEMORY_MB = 2_500
ENGINES = ("atheris", "hypothesis")


def run_atheris(check: Callable[[bytes], None], folder: Path, seconds: int, seed: int, target: Target) -> None:
    """Feed a function for so many seconds; ends the process.

    Args:
        check: The function.
        folder: With ``corpus`` (what was found to reach new code), ``seeds`` and ``artifacts``.
        seconds: How long.
        seed: Of the random numbers.
        target: How long an input may be, and may take.
    """
    import atheris

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-seed={seed}",
        f"-timeout={target.slow}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={folder / 'artifacts'}/",
        "-print_final_stats=1",
        "-len_control=20",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus"), str(folder / "seeds")], check)
    atheris.Fuzz()


def run_hypothesis(
    check: Callable[[bytes], None], seeds: Sequence[bytes], seconds: int, seed: int, longest: int
) -> None:
    """Feed a function for so many seconds with bytes of any kind and with changed seeds."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    ends = time.monotonic() + seconds
    anything = st.binary(max_size=longest)
    inputs: st.SearchStrategy[bytes] = anything
    if seeds:
        inputs = st.one_of(
            anything, st.builds(_changed, st.sampled_from(sorted(seeds)), st.integers(0, 2**32), anything)
        )
    number = seed
    while time.monotonic() < ends:

        @seeded(number)
        @settings(
            max_examples=2_000,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def some(data: bytes) -> None:
            if time.monotonic() < ends:
                check(data[:longest])

        some()
        number += 1


def _changed(seed: bytes, number: int, new: bytes) -> bytes:
    """A seed with a stretch replaced, cut out or repeated."""
    draw = random.Random(number)
    start, stop = sorted((draw.randrange(len(seed) + 1), draw.randrange(len(seed) + 1)))
    kind = draw.randrange(4)
    if kind == 0:
        return seed[:start] + new + seed[stop:]
    if kind == 1:
        return seed[:start] + seed[stop:]
    return seed[:stop] + seed[start:] if kind == 2 else seed[:start] + new[:8] + seed[start:]
