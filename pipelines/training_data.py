"""The files of pairs that a configuration of `retrieval train` names, without what the model is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

from pipelines.judged import HeldOut, Judged
from pipelines.train_config import DataConfig, TrainConfig
from retrieval.datatypes import Rejected
from retrieval.errors import DocumentError
from retrieval.training.contrastive.row_files import EXTENSIONS, is_row_file
from retrieval.training.contrastive.train_data import read_training_pairs, source_name
from retrieval.training.contrastive.training import TrainingSet
from retrieval.training.pairs import Pair

_KEPT_REJECTIONS = 100


class TrainingData:
    """The data sets of a configuration, without what the model is measured on."""

    def __init__(self, config: TrainConfig) -> None:
        self._files = [(file, part) for part in config.data for file in _files(part)]
        if not self._files:
            raise ValueError("there is no data: name files of pairs, or set data in the configuration")
        self.held_out = HeldOut(0.0 if config.evaluation.collection is not None else config.evaluation.held_out)
        self.judged: Judged | None = None
        self.rejected: list[Rejected] = []
        self.rejected_count = 0

    def sets(self) -> list[TrainingSet]:
        """Each file as a data set; reading them counts what is rejected and fills `held_out`."""
        return [
            TrainingSet(source_name(file), self._pairs(file, part, self._reject), part.weight)
            for file, part in self._files
        ]

    def texts(self) -> Iterator[str]:
        """All texts that will be trained on."""
        for file, part in self._files:
            for pair in self._pairs(file, part, lambda rejected: None):
                yield from (pair.query, pair.positive, *pair.negatives)

    def _pairs(self, file: Path, part: DataConfig, reject: Callable[[Rejected], None]) -> Iterator[Pair]:
        judged = set() if self.judged is None else {_folded(query) for query in self.judged.queries.values()}
        pairs = read_training_pairs(file, part.rows(), reject)
        return self.held_out.without(pair for pair in pairs if _folded(pair.query) not in judged)

    def _reject(self, rejected: Rejected) -> None:
        self.rejected_count += 1
        if len(self.rejected) < _KEPT_REJECTIONS:
            self.rejected.append(rejected)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _files(part: DataConfig) -> list[Path]:
    path = Path(part.path)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if is_row_file(file))
        if not found:
            raise DocumentError(f"the folder {path} holds no file of pairs ({', '.join(EXTENSIONS)})")
        return found
    if path.exists() or not any(mark in part.path for mark in "*?["):
        return [path]
    matching = sorted(map(Path, glob(part.path, recursive=True)))
    if not matching:
        raise DocumentError(f"no file matches {part.path}")
    return matching
