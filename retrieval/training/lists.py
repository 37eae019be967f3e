"""Lists that the cross-encoder learns from, the windows their passages are cut to, and their files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from retrieval.errors import DocumentError
from retrieval.protocols import Encoder


@dataclass(frozen=True, slots=True)
class RankingList:
    """A query, the passage that answers it, and passages that do not, hardest first; long ones cut to a window."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    source: str = ""


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
        result.append(RankingList(item.query, positive, tuple(next(windows) for _ in item.negatives), item.source))
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
    """Write lists as gzipped JSON lines."""
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as file:
        for item in lists:
            file.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")


def read_lists(path: str | Path) -> list[RankingList]:
    """Read what `write_lists` wrote.

    Raises:
        DocumentError: The file is not of that kind.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return [RankingList(row["query"], row["positive"], tuple(row["negatives"]), row["source"]) for row in rows]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DocumentError(f"{path} is not a file of ranking lists: {error}") from error
