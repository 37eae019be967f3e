"""Lists that the cross-encoder learns from, the windows their passages are cut to, and their files."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from retrieval.errors import DocumentError
from retrieval.protocols import Encoder


@dataclass(frozen=True, slots=True)
class RankingList:
    """A query, the passage that answers it, and passages that do not, hardest first; long ones cut to a window.

    Args:
        query: The query.
        positive: The passage that answers it.
        negatives: Passages that do not.
        source: Name of the collection.
        scores: What a stronger scorer gives to the positive and to each negative, in that order; higher is better, the
            scale is the scorer's. Empty when there is none.

    Raises:
        ValueError: There are scores, but not one for each passage, or one is not a finite number.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    source: str = ""
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.scores and len(self.scores) != 1 + len(self.negatives):
            raise ValueError(f"{len(self.scores)} scores for {1 + len(self.negatives)} passages of {self.query!r}")
        if not all(map(math.isfinite, self.scores)):
            raise ValueError(f"a score of {self.query!r} is not a finite number")


def cut_lists(lists: Sequence[RankingList], answers: Sequence[str], encoder: Encoder, words: int) -> list[RankingList]:
    """Cut every passage to the window closest to its query.

    A positive whose answer is known keeps a window that holds it.

    Args:
        lists: Lists with whole passages.
        answers: Answer string of each list, empty when unknown.
        encoder: Finds the closest windows.
        words: Words of a window.
    """
    queries = [item.query for item in lists for _ in range(1 + len(item.negatives))]
    texts = [text for item in lists for text in (item.positive, *item.negatives)]
    windows = iter(closest_windows(queries, texts, encoder, words))
    result = []
    for item, answer in zip(lists, answers, strict=True):
        positive = next(windows)
        if answer and not holds(positive, answer):
            positive = next((part for part in split_windows(item.positive, words) if holds(part, answer)), positive)
        negatives = tuple(next(windows) for _ in item.negatives)
        result.append(RankingList(item.query, positive, negatives, item.source, item.scores))
    return result


def holds(passage: str, answer: str) -> bool:
    """Whether a passage contains a known answer, in any case."""
    return bool(answer) and answer.lower() in passage.lower()


def closest_windows(queries: Sequence[str], texts: Sequence[str], encoder: Encoder, words: int) -> list[str]:
    """The window of ``words`` words of each text that is closest to its query; shorter texts stay whole.

    Windows overlap by half.
    """
    result = list(texts)
    for start in range(0, len(texts), 4096):
        long = [i for i in range(start, min(start + 4096, len(texts))) if len(texts[i].split()) > words]
        windows = {i: split_windows(texts[i], words) for i in long}
        vectors = encoder.encode_documents([window for i in long for window in windows[i]])
        asked = encoder.encode_queries([queries[i] for i in long])
        offset = 0
        for row, i in enumerate(long):
            scores = vectors[offset : offset + len(windows[i])] @ asked[row]
            result[i] = windows[i][int(scores.argmax())]
            offset += len(windows[i])
    return result


def split_windows(text: str, words: int) -> list[str]:
    """Windows of ``words`` words that overlap by half; the last one ends with the text."""
    parts = text.split()
    starts = [*range(0, max(1, len(parts) - words), max(1, words // 2)), max(0, len(parts) - words)]
    return [" ".join(parts[start : start + words]) for start in dict.fromkeys(starts)]


def write_lists(lists: Iterable[RankingList], path: str | Path) -> None:
    """Write lists as JSON lines, gzipped when the name ends in ``.gz``.

    The file appears when it is complete: a run that ends early leaves what was there before.
    """
    target = Path(path)
    part = target.with_name(target.name + ".part")
    with _open(part, "wt", target.suffix == ".gz") as file:
        for item in lists:
            row = {name: value for name, value in asdict(item).items() if name != "scores" or value}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    part.replace(target)


def read_lists(path: str | Path) -> list[RankingList]:
    """Read what `write_lists` wrote.

    Raises:
        DocumentError: The file is not of that kind.
    """
    try:
        with Path(path).open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with _open(Path(path), "rt", zipped) as file:
            return [_list_of(json.loads(line)) for line in file if line.strip()]
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise DocumentError(f"{path} is not a file of ranking lists: {error}") from error


def _open(path: Path, mode: str, zipped: bool) -> IO[str]:
    if zipped:
        return cast("IO[str]", gzip.open(path, mode, encoding="utf-8", compresslevel=3))
    return path.open(mode, encoding="utf-8")


def _list_of(row: dict[str, Any]) -> RankingList:
    negatives = row["negatives"] or []
    texts = (row["query"], row["positive"], row.get("source", ""), *negatives)
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("a list has the strings 'query' and 'positive' and the strings 'negatives'")
    scores = tuple(float(score) for score in row.get("scores") or ())
    return RankingList(row["query"], row["positive"], tuple(negatives), row.get("source", ""), scores)
