"""The folders that an assistant may ingest from, and nothing outside of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.folders import ignored_names, read_one, walk_files
from retrieval.errors import ConfigError, DocumentError


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder that may be read.

    Args:
        path: Real path, without links.
        root: The allowed folder that it is in.
    """

    path: Path
    root: Path


class Roots:
    """Allowed folders.

    Args:
        folders: The folders; none allows nothing.

    Raises:
        ConfigError: One is not a folder.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        resolved = []
        for folder in folders:
            real = _real(folder.expanduser())
            if real is None or not real.is_dir():
                raise ConfigError(f"--allow-ingest {folder} is not a folder; name one that is there")
            resolved.append(real)
        self.folders = tuple(dict.fromkeys(resolved))

    def __bool__(self) -> bool:
        return bool(self.folders)

    def place(self, name: str) -> Place:
        """The place that a name means, when it is inside an allowed folder after every link and ``..`` is followed.

        Args:
            name: A path below an allowed folder, or an absolute path inside one.

        Raises:
            DocumentError: It is outside, or there is nothing. Both say the same: what exists outside is nobody's
                business.
        """
        if "\0" in name:
            raise DocumentError("a path has no NUL characters")
        given = Path(name)
        for root in self.folders:
            # Joining with an absolute path gives that path.
            real = _real(root / given)
            if real is not None and real.is_relative_to(root) and _is_spelled_so(real, root):
                return Place(real, root)
        allowed = ", ".join(map(str, self.folders))
        raise DocumentError(f"there is no file or folder {name!r} in the folders that may be ingested: {allowed}")

    def documents(
        self, place: Place, config: DocumentsConfig, on_rejected: Callable[[Rejected], None]
    ) -> Iterator[Document]:
        """The documents of a place, with the ids that they have when their root is ingested as a whole.

        What the root ignores (hidden files, its ``.retrievalignore``) is not read, also when it is named.

        Args:
            place: What `place` gave.
            config: How to read.
            on_rejected: Called with everything that cannot be used.

        Raises:
            DocumentError: The place cannot be opened.
        """
        ignored = ignored_names(place.root, config)
        files, named = walk_files(place.path, config, on_rejected)
        for file, _ in files:
            name = file.relative_to(place.root).as_posix()
            if ignored.match_file(name):
                if named:
                    on_rejected(Rejected(name, "is ignored in this folder"))
                continue
            try:
                yield from read_one(file, name, config, on_rejected, named=named)
            except DocumentError as error:
                on_rejected(Rejected(name, str(error)))


def _real(path: Path) -> Path | None:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # nothing there, a loop of links, a name that no file can have
        return None


def _is_spelled_so(path: Path, root: Path) -> bool:
    """Whether every name is spelled as the folder lists it; some file systems find ``A.TXT`` under ``a.txt`` too.

    The same file under two names would be two documents.
    """
    at = root
    for part in path.relative_to(root).parts:
        try:
            if part not in os.listdir(at):
                return False
        except OSError:
            return False
        at /= part
    return True
