"""Whether an ingest gets a second process, and with what."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from pipelines.preparation_messages import Recipe
from pipelines.preparation_process import OtherProcess
from retrieval import __version__
from retrieval.config import Config
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.protocols import Encoder, SparseEncoder

PAYS_FROM_BYTES = 8 * 2**20
"""Size of a source from which a second process is worth the second that it takes to start."""

_PACKED = 3
_logger = logging.getLogger(__name__)


class SecondProcess:
    """Starts the second process of one ingest, where there can be one and where it pays.

    It needs encoders that it can open by itself, and a second core.

    Args:
        config: Configuration of the index.
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
    """

    def __init__(self, config: Config, encoder: Encoder, sparse: SparseEncoder) -> None:
        self._config = config
        self._encoder = encoder
        self._folder = encoder.folder if type(encoder) is StaticEncoder else None
        self._setting = config.documents.second_process
        self._possible = (
            self._setting is not False
            and self._folder is not None
            and type(sparse) is Bm25Encoder
            and sparse.config == config.bm25
            and bool(sys.executable)
            and (self._setting is True or _cores() > 1)
        )

    def for_path(self, path: Path) -> OtherProcess | None:
        """One that reads a path, if that is large enough."""
        if self._possible and (self._setting is True or _holds(path, PAYS_FROM_BYTES)):
            return self._start(path)
        return None

    def for_documents(self, characters: int) -> OtherProcess | None:
        """One that documents are sent to, if so many characters came already; more often are as many to come."""
        if self._possible and (self._setting is True or characters >= PAYS_FROM_BYTES):
            return self._start(None)
        return None

    def _start(self, path: Path | None) -> OtherProcess | None:
        assert self._folder is not None
        try:
            recipe = Recipe(
                version=__version__,
                encoder_folder=self._folder,
                dimensions=self._encoder.dim,
                fingerprint=self._encoder.fingerprint,
                bm25=self._config.bm25,
                chunking=self._config.chunking,
                path=None if path is None else path.absolute(),
                documents=self._config.documents,
                log_level=logging.getLogger("retrieval").getEffectiveLevel(),
            )
            return OtherProcess(recipe)
        except OSError as error:
            self._possible = False
            _logger.warning("reading and encoding stay in one process: %s", error)
            return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _holds(path: Path, size: int) -> bool:
    """Whether a file or folder has at least so many bytes, as far as names and sizes tell."""
    waiting = [path.expanduser()]
    while waiting and size > 0:
        entry = waiting.pop()
        try:
            if entry.is_dir():
                with os.scandir(entry) as listing:
                    waiting += [Path(each) for each in listing if not each.is_symlink()]
            else:
                size -= entry.stat().st_size * (_PACKED if entry.suffix == ".gz" else 1)
        except OSError:
            continue
    return size <= 0
