"""The engine writes to the files that it opens, and they must be those of the index."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from retrieval.errors import StoreCorruptError


def require_plain_files(engine: Path, place: Path) -> None:
    """Refuse an index of which a file is a link, a pipe or a device.

    An index that came from elsewhere could otherwise have the engine write to any file of its user.

    Args:
        engine: Folder of the engine; need not exist.
        place: The index, for the message.

    Raises:
        StoreCorruptError: There is one; it is named.
    """
    waiting = [str(engine)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        kind = "a symbolic link" if entry.is_symlink() else "no regular file"
                        raise StoreCorruptError(f"{entry.path} is {kind}; the files of index {place} must be its own")
        except FileNotFoundError:
            continue


def is_own_folder(folder: Path) -> bool:
    """Whether a folder is there and is no link to another."""
    try:
        return stat.S_ISDIR(folder.lstat().st_mode)
    except OSError:
        return False
