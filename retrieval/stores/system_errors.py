"""What the operating system refused the engine, which tells it in words only."""

from __future__ import annotations

import errno
import os
import re

from retrieval.errors import StoreError, StoreFullError

_NUMBER = re.compile(r"\bos error (\d+)\b|\bOs \{ code: (\d+)\b")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REMEDIES = {
    errno.EACCES: "have its files given to this user, or search a copy of it with read_only",
    errno.EPERM: "have its files given to this user, or search a copy of it with read_only",
    errno.EROFS: "search a copy of it with read_only",
    errno.EMFILE: "raise the number of files that a process may open (ulimit -n)",
    errno.ENFILE: "close other programs, which have too many files open",
    errno.ENOMEM: "close other programs, or raise the limit of memory (ulimit -v)",
}


def refusal_of(error: BaseException, place: str) -> StoreError | None:
    """The error for something that the system refused; ``None`` where an error of the engine is another one.

    Args:
        error: Of the engine.
        place: The index, for the message.
    """
    match = _NUMBER.search(str(error))
    if match is None:
        return None
    number = int(match[1] or match[2])
    reason = os.strerror(number)
    if number in _FULL:
        return StoreFullError(f"{place} cannot be written to ({reason}); make room, and try again: nothing is lost")
    if number in _REMEDIES:
        return StoreError(f"{place} cannot be opened or changed ({reason}); {_REMEDIES[number]}")
    return None
