"""How long work tells its caller where it is."""

from collections.abc import Callable

StepCallback = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and of how many (0: not known)."""
