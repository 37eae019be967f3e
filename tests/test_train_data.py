"""Training pairs from files: formats, names of columns, rows that cannot be used, and how batches are drawn."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.datatypes import Rejected
from retrieval.errors import DocumentError
from retrieval.training.contrastive.mixing import MixedBatches, Sampling, candidate_columns
from retrieval.training.contrastive.token_rows import RowGroup, TokenRows, TokenRowWriter
from retrieval.training.contrastive.train_data import RowSettings, read_training_pairs
from retrieval.training.pairs import Pair
from retrieval.training.table import StaticTable
from tests.static_models import random_table, word_tokenizer

ROWS = [
    {"anchor": "what leaks", "positive": "the pipe leaks", "negative": "the roof holds"},
    {"anchor": 'who says "hi, you"', "positive": "two\nlines", "negative": "caf\u00e9 \u65e5\u672c"},
]
PAIRS = [
    Pair("what leaks", "the pipe leaks", ("the roof holds",), source="rows"),
    Pair('who says "hi, you"', "two\nlines", ("caf\u00e9 \u65e5\u672c",), source="rows"),
]


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ";")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", write_json),
        ("rows.jsonl.gz", write_json),
        ("rows.csv", write_table),
        ("rows.tsv", write_table),
        ("rows.parquet", write_parquet),
    ],
)
def test_triplets_are_the_same_from_every_format(
    tmp_path: Path, name: str, write: Callable[[Path, Sequence[dict[str, Any]]], Path]
) -> None:
    assert list(read_training_pairs(write(tmp_path / name, ROWS), on_rejected=pytest.fail)) == PAIRS


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"query": "q", "positive": "p", "negatives": ["n", "m"]}, [("q", "p", ("n", "m"))]),
        ({"query": "q", "pos": ["p", "o"], "neg": ["n", "p", ""]}, [("q", "p", ("n",)), ("q", "o", ("n",))]),
        ({"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m"}, [("q", "p", ("n", "m"))]),
        ({"Question": "q", "Answer": "p", "id": 7}, [("q", "p", ())]),
        ({"sentence1": "q", "sentence2": "p"}, [("q", "p", ())]),
        ({"premise": "q", "entailment": "p", "contradiction": "n"}, [("q", "p", ("n",))]),
        ({"english": "q", "non_english": "p"}, [("q", "p", ())]),
        ({"positive": "p", "answer": "a", "query": " q "}, [("q", "p", ())]),
        ({"query": "q", "positive": "p", "stance": "REFUTES"}, []),
        ({"query": "q", "positive": "half \ud800 pair"}, [("q", "half ? pair", ())]),
    ],
)
def test_the_usual_names_of_columns(
    tmp_path: Path, row: dict[str, Any], expected: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    path = write_json(tmp_path / "rows.jsonl", [row])
    pairs = list(read_training_pairs(path, on_rejected=pytest.fail))
    assert [(pair.query, pair.positive, pair.negatives) for pair in pairs] == expected


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "rows.jsonl", [{"de": "Rohr", "en": "pipe", "bad": "roof", "query": "x"}])
    settings = RowSettings(query="de", positive="en", negatives=("bad",))
    assert list(read_training_pairs(path, settings)) == [Pair("Rohr", "pipe", ("roof",), source="rows")]
    without = RowSettings(query="de", positive="en", negatives=())
    assert list(read_training_pairs(path, without)) == [Pair("Rohr", "pipe", source="rows")]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"query": "q", "url": "u"}], RowSettings(), r"no column for the positive.*columns found: 'query', 'url'"),
        ([{"a": "q", "b": "u"}], RowSettings(), r"no column for the query \(such as query, anchor.*'a', 'b'"),
        ([{"text": "only one"}], RowSettings(), r"no column for the query.*columns found: 'text'"),
        ([{"query": "q", "positive": "p"}], RowSettings(positive="answer"), r"no column 'answer' for the positive"),
        ([{"query": "q", "positive": "p"}], RowSettings(negatives=("n",)), r"no column 'n' for the negatives"),
        ([{"query": "q", "positive": "p", "score": 0.1}], RowSettings(), r"scores in column 'score'.*min_score"),
        ([], RowSettings(), r"holds no usable row"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, rows: list[dict[str, Any]], settings: RowSettings, message: str
) -> None:
    path = write_json(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DocumentError, match=message) as raised:
        list(read_training_pairs(path, settings))
    assert str(path) in str(raised.value)


def test_pairs_with_a_low_score_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"sentence1": "a", "sentence2": "b", "score": "4.5"},
        {"sentence1": "c", "sentence2": "d", "score": "1"},
        {"sentence1": "e", "sentence2": "f", "score": "high"},
    ]
    rejected: list[Rejected] = []
    path = write_table(tmp_path / "sts.csv", rows)
    pairs = list(read_training_pairs(path, RowSettings(min_score=4.0), rejected.append))
    assert [pair.query for pair in pairs] == ["a"]
    assert rejected == [Rejected(f"{path}:4", "column 'score' holds 'high', not a number")]


def test_rows_that_cannot_be_used_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        b'{"query": "q1", "positive": "p1"}',
        b"not json",
        b'{"query": "q", "positive": NaN}',
        b'{"query": "", "positive": "p"}',
        b'{"query": "q"}',
        b'["q", "p"]',
        b"\xff\xfe\x00binary",
        b'{"query": 7, "positive": "p"}',
        b'{"query": "same", "positive": "same"}',
        b"",
        b'{"query": "q2", "positive": "p2"}',
    ]
    path.write_bytes(b"\n".join(lines))
    rejected: list[Rejected] = []
    pairs = list(read_training_pairs(path, on_rejected=rejected.append))
    assert [pair.query for pair in pairs] == ["q1", "q2"]
    reasons = {int(one.source.rpartition(":")[2]): one.reason for one in rejected}
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert "not valid JSON" in reasons[2]
    assert "NaN is not a JSON number" in reasons[3]
    assert reasons[4] == "column 'query' is empty"
    assert "no column for the positive" in reasons[5]
    assert reasons[6] == "holds a JSON list, not an object"
    assert "not valid UTF-8" in reasons[7]
    assert reasons[8] == "column 'query' holds a int, not text"
    assert reasons[9] == "columns 'query' and 'positive' hold the same text"


def test_a_missing_value_of_a_table_is_an_empty_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [{"query": "q", "positive": "p"}, {"query": "q", "positive": None}])
    rejected: list[Rejected] = []
    assert len(list(read_training_pairs(path, on_rejected=rejected.append))) == 1
    assert rejected == [Rejected(f"{path}:2", "column 'positive' is empty")]
    path = tmp_path / "rows.csv"
    path.write_text("query,positive\nq,p\nq,\nq,p,more\nq2,p2\n", encoding="utf-8")
    rejected.clear()
    assert [pair.query for pair in read_training_pairs(path, on_rejected=rejected.append)] == ["q", "q2"]
    assert [one.source.rpartition(":")[2] for one in rejected] == ["3", "4"]


def test_long_texts_are_cut_and_the_limit_counts_usable_pairs(tmp_path: Path) -> None:
    rows = [{"query": "", "positive": "p"}, *({"query": f"q{i}", "positive": "x" * 50} for i in range(5))]
    path = write_json(tmp_path / "rows.jsonl", rows)
    pairs = list(read_training_pairs(path, RowSettings(limit=2, max_characters=10)))
    assert [(pair.query, pair.positive) for pair in pairs] == [("q0", "x" * 10), ("q1", "x" * 10)]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(ROWS[0]) + "\n" for _ in range(2000)).encode(), compresslevel=0)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "wide.csv").write_bytes("query,positive\nq,p\n".encode("utf-16"))
    (tmp_path / "no.parquet").write_bytes(b"PAR1 is not enough")
    (tmp_path / "twice.csv").write_text("query,query\na,b\n", encoding="utf-8")
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    for name, message in {
        "cut.jsonl.gz": "cannot read .* to its end",
        "wide.csv": "is UTF-16; save it as UTF-8",
        "no.parquet": "not a sound Parquet file",
        "twice.csv": "names the column 'query' twice",
        "rows.xlsx": r"\.jsonl, .*not '\.xlsx'",
        "missing.csv": "no file",
    }.items():
        with pytest.raises(DocumentError, match=message):
            list(read_training_pairs(tmp_path / name))


def rows_of(*groups: tuple[str, float, int], same_positive: bool = False) -> TokenRows:
    total = sum(count for _, _, count in groups)
    texts = np.arange(2 * total, dtype=np.int32).reshape(total, 2)
    if same_positive:
        texts[:, 1] = 2 * total
    starts = np.cumsum([0, *(count for _, _, count in groups)]).tolist()
    named = tuple(
        RowGroup(name, weight, start, start + count)
        for (name, weight, count), start in zip(groups, starts, strict=False)
    )
    return TokenRows(texts, np.empty(0, np.int32), np.zeros(1, np.int64), named)


@pytest.mark.parametrize(
    ("sampling", "weights", "expected"),
    [
        ("proportional", (1.0, 1.0), {"a": 10, "b": 2}),
        ("proportional", (0.5, 3.0), {"a": 5, "b": 6}),
        ("round_robin", (1.0, 1.0), {"a": 2, "b": 2}),
        ("round_robin", (2.0, 1.0), {"a": 4, "b": 2}),
    ],
)
def test_batches_come_from_one_data_set_in_the_proportions_asked_for(
    sampling: Sampling, weights: tuple[float, float], expected: dict[str, int]
) -> None:
    rows = rows_of(("a", weights[0], 100), ("b", weights[1], 20))
    batches = list(MixedBatches(rows, 10, sampling, seed=1))
    names = [{"a" if row < 100 else "b" for row in batch} for batch in batches]
    assert all(len(name) == 1 for name in names)
    assert {name: sum(one == {name} for one in names) for name in "ab"} == expected
    assert len(MixedBatches(rows, 10, sampling, seed=1)) == len(batches)
    if (sampling, weights) == ("proportional", (1.0, 1.0)):
        assert sorted(row for batch in batches for row in batch) == list(range(120))


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    batches = MixedBatches(rows_of(("a", 1.0, 50)), 10, "proportional", seed=3)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first
    batches.set_epoch(0)
    assert list(batches) == first
    assert list(MixedBatches(rows_of(("a", 1.0, 50)), 10, "proportional", seed=4)) != first


def test_a_batch_holds_no_text_twice() -> None:
    rows = rows_of(("a", 1.0, 90))
    rows.texts[:, 1] = 1000 + np.arange(90) // 3  # every passage answers three queries
    rows.texts[:10, 0] = 0  # and one query is asked ten times
    batches = list(MixedBatches(rows, 15, "proportional", seed=0))
    assert len(batches) == 6
    for batch in batches:
        used = rows.texts[batch, :2].ravel().tolist()
        assert len(set(used)) == len(used)
    assert len({row for batch in batches for row in batch}) >= 75
    alike = MixedBatches(rows_of(("a", 1.0, 30), same_positive=True), 10, "proportional", seed=0)
    assert [len(batch) for batch in alike] == [1, 1, 1]


def test_a_hard_negative_that_answers_another_query_of_the_batch_is_replaced() -> None:
    texts = np.array([[0, 10, 11, -1], [1, 11, 20, -1], [2, 12, -1, -1]], np.int32)
    # 11 is the positive of the second row, and the third row has no negative: both get 20. No row has a second one.
    assert candidate_columns(texts).tolist() == [[0, 10, 20], [1, 11, 20], [2, 12, 20]]


def test_texts_are_tokenized_once_cut_and_padded(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["pipe", "leak", "roof", "rain"])
    table = StaticTable(random_table(tokenizer), tokenizer)
    pairs = [
        Pair("pipe", "leak roof rain pipe", ("rain",)),
        Pair("roof", "rain", ()),
        Pair("unheard", "rain", ()),
        Pair("rain", "leak roof rain pipe", ("pipe", "roof", "leak")),
    ]
    with TokenRowWriter(table, tmp_path / "tokens.bin", negatives=2, max_tokens=3) as writer:
        assert writer.add("a", 1.0, pairs[:3]) == 2
        assert writer.add("b", 2.0, pairs[3:]) == 1
        rows = writer.finish()
    assert writer.unknown == 1
    assert rows.groups == (RowGroup("a", 1.0, 0, 2), RowGroup("b", 2.0, 2, 3))
    assert len(rows.offsets) - 1 == 5  # pipe, leak roof rain, rain, roof, unheard; leak, a third negative, is not kept
    ids = [
        [rows.padded(np.array([number], np.int32), 9)[0].tolist() for number in row if number >= 0]
        for row in rows.texts
    ]
    assert ids == [[[1], [2, 3, 4], [4], [4]], [[3], [4]], [[4], [2, 3, 4], [1], [3]]]
    assert rows.padded(rows.texts[0, :2], 9).tolist() == [[1, 9, 9], [2, 3, 4]]
