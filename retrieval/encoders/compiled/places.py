"""Folders for compiled kernels, and files in them.

A file of machine code runs with the rights of whoever loads it. So it is taken only from a folder that nobody else can
write to: both belong to the user, to root, or to whoever owns this code, and neither group nor others may write them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import portalocker

_DIGEST = hashlib.sha256().digest_size
_KEPT = 8  # files of earlier versions and of other machines with the same home
_MOST_BYTES = 2**24
# Neither through a link nor, without waiting for a writer, from a pipe.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class UnusableError(Exception):
    """Compiled kernels cannot be had; the message says why."""


def folders() -> list[Path]:
    """Where the file may lie, best first: beside the code, in the user's cache, in a folder of temporary files."""
    places = [Path(__file__).parent / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # nobody's home
        places.append(_user_cache() / "two-stage-retrieval")
    with contextlib.suppress(OSError):  # nowhere at all
        user = os.getuid() if hasattr(os, "getuid") else "user"
        places.append(Path(tempfile.gettempdir()) / f"two-stage-retrieval-{user}")
    return places


def read_checked(path: Path) -> bytes:
    """What `write_checked` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        UnusableError: It cannot be read, others may have written it, or it is damaged.
    """
    try:
        with _opened(path) as handle:
            _require_own(os.lstat(path.parent), path.parent)
            found = os.fstat(handle)
            _require_own(found, path)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
                raise UnusableError(f"{path} is damaged: it is no file of compiled kernels")
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(_MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise UnusableError(f"{path} is damaged: its checksum is wrong")
    return content[_DIGEST:]


def write_checked(content: bytes, name: str, places: Sequence[Path]) -> Path:
    """Write a file into the first folder that takes it, at once or not at all.

    Raises:
        UnusableError: No folder can be written, or others can write them all.
    """
    folder = own_folder(places)
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix="kernels-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, folder / name)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UnusableError(f"{folder}: {error.strerror}") from error
    _forget_old(folder)
    return folder / name


def own_folder(places: Sequence[Path]) -> Path:
    """The first folder that can be written, and not by others; made where it is not there.

    Raises:
        UnusableError: There is none.
    """
    reasons = []
    for folder in places:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_own(os.lstat(folder), folder)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
        except UnusableError as error:
            reasons.append(str(error))
    raise UnusableError(f"no folder for compiled kernels: {'; '.join(reasons) or 'none is known'}")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process at a time; where the file system has no locks, all of them."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, portalocker.LockException):
            stack.enter_context(portalocker.Lock(folder / "kernels.lock", flags=portalocker.LockFlags.EXCLUSIVE))
        yield


def _require_own(found: os.stat_result, path: Path) -> None:
    if not hasattr(os, "getuid"):  # the user's folders are private there
        return
    if found.st_uid not in (os.geteuid(), 0, os.stat(__file__).st_uid):
        raise UnusableError(f"{path} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnusableError(f"{path} can be written by other users; chmod go-w {path}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, _FLAGS)
    try:
        yield handle
    finally:
        os.close(handle)


def _forget_old(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process does the same
        files = sorted(folder.glob("kernels-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_KEPT:]:
            path.unlink()


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"
