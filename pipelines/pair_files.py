"""Pairs of query and passage from files and folders, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from retrieval.datatypes import Rejected
from retrieval.errors import DocumentError
from retrieval.training.contrastive.row_files import EXTENSIONS, is_row_file
from retrieval.training.contrastive.train_data import read_training_pairs
from retrieval.training.pairs import Pair, stream_pairs


class PairFiles:
    """The pairs of files and folders, read anew each time they are iterated; an unusable row ends it.

    JSON lines are read by `retrieval.training.pairs.stream_pairs`, the other formats by
    `retrieval.training.contrastive.train_data.read_training_pairs`; those have no answers and no documents.

    Args:
        paths: Files, or folders whose files of known formats are read in the order of their names.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [Path(path) for path in paths]

    def __iter__(self) -> Iterator[Pair]:
        for path in self._paths:
            files = sorted(file for file in path.iterdir() if is_row_file(file)) if path.is_dir() else [path]
            if not files:
                raise DocumentError(f"the folder {path} holds no file of pairs: {', '.join(EXTENSIONS)}")
            for file in files:
                if file.name.removesuffix(".gz").endswith(".jsonl"):
                    yield from stream_pairs(file)
                else:
                    yield from read_training_pairs(file, on_rejected=_refuse)


def _refuse(rejected: Rejected) -> None:
    raise DocumentError(f"{rejected.source}: {rejected.reason}")
