"""What a target is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """One function to be fed.

    Args:
        name: For the command line and the report.
        states: What holds of any input, for the report.
        open: Makes the function; given a folder for its files and a stack for what it has to close.
        seeds: Inputs to begin with.
        longest: Most bytes of an input.
        weight: Share of the time.
        slow: Seconds that one case may take.
        extra: Top-level package that it needs and an installation may lack; it is left out then.
    """

    name: str
    states: str
    open: Callable[[Path, ExitStack], Check]
    seeds: Callable[[], Sequence[bytes]] = lambda: ()
    longest: int = 512
    weight: float = 1.0
    slow: int = 10
    extra: str = ""


def require_short(error: Exception, most: int) -> None:
    """Fail unless the message of an error says something, in bounds."""
    message = str(error)
    assert message.strip(), "an error without a message"
    assert len(message) < most, f"a message of {len(message)} characters"


def require_refusal(status: int) -> None:
    """Fail unless a request is refused for what is wrong with it."""
    assert 400 <= status < 500, f"status {status}"
