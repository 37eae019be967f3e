"""What fuzzing has found, each as the input that showed it; see `benchmarks/fuzz`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pipelines.commands.filter_option import parse_where as where_of
from pipelines.pair_files import PairFiles
from pipelines.service.config import ServiceConfig
from pipelines.service.spool import Spool
from pipelines.terminal.settings import _filter as terminal_filter
from retrieval.config import DocumentsConfig, load_config, load_settings, parse_config
from retrieval.datatypes import Point, Rejected
from retrieval.documents import open_documents
from retrieval.documents.formats import as_unicode
from retrieval.errors import ConfigError, DocumentError, StoreCorruptError, StoreInputError
from retrieval.evaluation.contrast import read_question_contrasts
from retrieval.headings import find_headings
from retrieval.rerankers import IndexCalibration, RerankerCalibration
from retrieval.stores import open_store, peek_quantization
from retrieval.stores.filters import parse_filter
from retrieval.training.contrastive.checkpoints import require_same_run
from retrieval.training.reranker.lists import read_lists
from retrieval.yaml_text import MAX_YAML_CHARACTERS, load_yaml, shown

THRESHOLD = {"target": 0.9, "probability": 0.5, "precision": 0.9, "recall": 0.5}
STORED = {
    "reranker": "r@1",
    "passages": {"kind": "platt", "slope": 1.0, "intercept": 0.0},
    "threshold": THRESHOLD,
    "labels": "own",
    "fitted_on": "pairs",
    "date": "2024-05-01",
}
# Nine lists of nine names of the list before: a thousand bytes that stand for four hundred million items.
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


# Configuration.


@pytest.mark.parametrize(
    "text",
    [
        "x: !!int abc\n",
        "x: 0b_\n",
        "x: 2024-13-45\n",
        "x: !!timestamp a\n",
        "x: !!float .\n",
        "x: " + "9" * 5000 + "\n",
        "[" * 5_000,
    ],
)
def test_yaml_with_values_that_are_none_is_a_configuration_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (load_config, lambda file: load_settings(ServiceConfig, file, section="service")):
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 3_000
    with pytest.raises(ConfigError, match="rerank"):
        load_config(None, [f"rerank.depth={text[3:]}"])


def test_lists_in_lists_in_lists_do_not_fill_the_message(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(LAUGHS + "rerank: *a8\n", encoding="utf-8")
    started = time.process_time()
    with pytest.raises(ConfigError, match="rerank") as caught:
        load_config(path)
    assert len(str(caught.value)) < 10_000
    assert time.process_time() - started < 10


def test_many_problems_are_counted_and_not_all_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({f"section{number}": 1 for number in range(3_000)})
    assert str(caught.value).splitlines()[-1] == "configuration: and 2,950 more"
    assert str(caught.value).count("\n") == 50


@pytest.mark.parametrize("name", ["edge", "memory", "server"])
def test_a_section_that_is_named_like_a_kind_of_store_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key {name}; allowed here: bm25, chunking"):
        parse_config({name: {}})


def test_a_configuration_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(20 * 2**30)  # sparse
    with pytest.raises(ConfigError, match=f"more than {MAX_YAML_CHARACTERS:,}"):
        load_config(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), ("a", "'a'"), ([1, 2], "[1, 2]"), ({"a": 1}, "{'a': 1}")],
)
def test_values_in_messages(value: object, text: str) -> None:
    assert shown(value) == text
    assert shown(10**5000) == "a number of thousands of digits"
    assert len(shown("x" * 10**6)) <= 200
    assert len(shown(load_yaml(LAUGHS))) <= 200


# Files.


@pytest.mark.parametrize("encoding", ["utf-16", "UTF_32", "utf-16-le"])
@pytest.mark.parametrize("extension", [".jsonl", ".csv", ".json", ".txt"])
def test_a_stated_encoding_of_two_bytes_needs_no_mark(encoding: str, extension: str, tmp_path: Path) -> None:
    texts = {".jsonl": '{"text": "pipe"}\n', ".json": '{"text": "pipe"}', ".csv": "text\npipe\n", ".txt": "pipe"}
    little = "utf-32-le" if "32" in encoding else "utf-16-le"
    for coded in {little, encoding}:
        path = tmp_path / f"{coded}{extension}"
        path.write_bytes(texts[extension].encode(coded))
        rejected: list[Rejected] = []
        documents = list(open_documents(path, DocumentsConfig(encoding=encoding), on_rejected=rejected.append))
        assert ([document.text for document in documents], rejected) == (["pipe"], [])


@pytest.mark.parametrize("extension", [".jsonl", ".csv", ".json", ".txt"])
def test_what_is_not_in_the_stated_encoding_is_refused_or_marked(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{extension}"
    path.write_bytes(b"\x81\x00 text\n\xff\xfe")
    for encoding in ("utf-16", "utf-32", "idna", "punycode", "utf-7"):
        rejected: list[Rejected] = []
        try:
            documents = list(open_documents(path, DocumentsConfig(encoding=encoding), on_rejected=rejected.append))
        except DocumentError:
            continue
        assert rejected or documents


@pytest.mark.parametrize("name", ["undefined", "a\0b", "nowhere", "hex"])
def test_encodings_that_are_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(DocumentError, match=r"documents\.encoding .* is not known"):
        open_documents(tmp_path, DocumentsConfig(encoding=name), on_rejected=print)


def test_a_rule_below_a_heading_does_not_make_it_a_second_one() -> None:
    text = "# ===\n===\n===\n"
    assert [(heading.start, heading.title) for heading in find_headings(text)] == [(0, "===")]
    assert [heading.title for heading in find_headings("# One\n-----\ntext\n")] == ["One"]


@pytest.mark.skipif(os.sep != "/", reason="elsewhere names are Unicode, and backslashes part them")
def test_names_of_different_bytes_stay_different(tmp_path: Path) -> None:
    assert as_unicode("a\\b \\x5 caf\u00e9") == "a\\b \\x5 caf\u00e9"
    raw = (b"\xff.txt", b"\\xff.txt", b"\\\xff.txt", b"\\x5cxff.txt", b"\\\\xff.txt", b"\\x\xff.txt")
    for number, name in enumerate(raw):
        with open(os.fsencode(tmp_path) + b"/" + name, "w", encoding="utf-8") as file:
            file.write(f"text {number}")
    rejected: list[Rejected] = []
    documents = list(open_documents(tmp_path, on_rejected=rejected.append))
    assert rejected == []
    assert len({document.key for document in documents}) == len(raw)
    assert {document.id for document in documents} >= {r"\xff.txt", r"\x5cxff.txt"}


# Filters.


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"key": "a", "range": {"gt": 10**400}}, "is a finite number"),
        ({"key": "a", "range": {"gt": 10**5000}}, "is a finite number"),
        ({"key": "a", "match": {"text": "\ud800"}}, "half of a surrogate pair"),
        ({"key": '"\ud800"', "match": {"value": 1}}, "half of a surrogate pair"),
        ({"key": "a", "range": {"gt": "2024-05-01T12:00:00+05:30:15"}}, "is not an RFC 3339 datetime"),
        ({"key": "a", "match": {"value": 10**5000}}, "beyond 64 bits"),
        ({"key": "a" * 10**6, "range": "x" * 10**6}, "a payload path"),
        ({"key": "a", "match": "x" * 10**6}, "is a mapping"),
    ],
)
def test_filters_that_an_engine_would_choke_on_are_refused(condition: dict[str, Any], reason: str) -> None:
    with pytest.raises(StoreInputError, match=reason) as caught:
        parse_filter({"must": [condition]})
    assert len(str(caught.value)) < 1_000


DATES = [
    f"{day}{time_of_day}{zone}"
    for day in (
        "2024-05-01",
        "2024-5-1",
        "20240501",
        "2024-W18-3",
        " 2024-05-01",
        "+2024-05-01",
        "2024-02-30",
        "24-05-01",
    )
    for time_of_day in (
        "",
        "T12",
        "T12:00",
        "T12:00:00",
        "t12:00:00.5",
        " 12:00:00",
        "T12:00:00,5",
        "T23:59:60",
        "T24:00:00",
    )
    for zone in ("", "Z", "z", "+02:00", "+0200", "+02", "+05:30:15", "+24:00", " Z", "UTC", "utc", "+0199", "-00:00")
]


def test_the_oracle_reads_the_dates_that_the_engine_reads(tmp_path: Path) -> None:
    points = [Point(str(UUID(int=number)), None, None, {"when": text}) for number, text in enumerate(DATES)]
    found = []
    for settings in ({"kind": "memory"}, {"kind": "edge", "min_free_mb": 0}):
        with closing(open_store(parse_config({"store": settings}), dim=2, path=tmp_path / "index")) as store:
            store.upsert(points)
            for bounds in ({"gte": "0001-01-02"}, {"gte": "2024-05-01T12:00:00Z"}, {"lt": "2024-05-01T10:00:01Z"}):
                where = {"must": [{"key": "when", "range": bounds}]}
                found.append([DATES[UUID(each.id).int] for each in store.scan(where, payload=False)])
    half = len(found) // 2
    assert found[:half] == found[half:]
    assert all(found)


# Files of an index and of a model.


@pytest.mark.parametrize(
    "change",
    [
        {"bits": "2"},
        {"bits": None},
        {"bits": {}},
        {"kind": "turbo", "bits": 10**400},
        {"oversampling": "a"},
        {"kind": []},
        {"kind": "zip"},
    ],
)
def test_a_quantization_of_other_types_is_damage(change: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "generations" / "1"
    place.mkdir(parents=True)
    sound = {"kind": "scalar", "bits": 2, "query_bits": None, "rescore": True, "oversampling": 3.0}
    (place / "store.json").write_text(json.dumps({"quantization": sound, "has_deletes": False}), encoding="utf-8")
    assert str(peek_quantization(tmp_path, 1)[0]) == "scalar int8, oversampling 3, rescored"
    damaged = {"quantization": {**sound, **change}, "has_deletes": False}
    (place / "store.json").write_text(json.dumps(damaged), encoding="utf-8")
    with pytest.raises(StoreCorruptError, match="is damaged"):
        peek_quantization(tmp_path, 1)


def test_a_number_of_written_passages_that_is_infinite_is_damage(tmp_path: Path) -> None:
    place = tmp_path / "generations" / "1"
    place.mkdir(parents=True)
    content = '{"quantization": {"kind": "none"}, "has_deletes": false, "written": 1e999}'
    (place / "store.json").write_text(content, encoding="utf-8")
    with pytest.raises(StoreCorruptError, match="is damaged"):
        peek_quantization(tmp_path, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"passages": {"kind": "platt", "slope": 10**400, "intercept": 0.0}},
        {"passages": {"kind": "isotonic", "logits": [10**400], "probabilities": [1]}},
        {"threshold": {**THRESHOLD, "probability": 10**400}},
        {"threshold": {**THRESHOLD, "probability": 1.5}},
        {"threshold": {**THRESHOLD, "recall": float("inf")}},
        {"threshold": {**THRESHOLD, "precision": float("nan")}},
        {"labels": float("nan")},
        {"labels": ["own"]},
    ],
)
def test_calibrations_with_impossible_numbers_are_refused(change: dict[str, Any]) -> None:
    assert IndexCalibration.from_json(STORED).to_json() == STORED
    with pytest.raises(ValueError, match=r"."):
        IndexCalibration.from_json({**STORED, **change})


@pytest.mark.parametrize("name", ["right_above", "right_below"])
def test_shares_of_right_orders_lie_between_nothing_and_all(name: str) -> None:
    content = {
        "passages": STORED["passages"],
        "results": STORED["passages"],
        "thresholds": [THRESHOLD],
        "fitted_on": "pairs",
        "model_digest": "0",
        "twins": {"logits": 1.0, "right_above": 0.9, "right_below": 0.6, "fitted_on": "twins"},
    }
    RerankerCalibration.from_json(content)
    with pytest.raises(ValueError, match="shares of right orders are from 0 to 1"):
        RerankerCalibration.from_json({**content, "twins": {**content["twins"], name: float("inf")}})


# JSON of a hundred thousand brackets, where json.loads raises neither a ValueError nor returns.

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (lambda path: read_question_contrasts(path), DocumentError),
        (lambda path: read_lists(path), DocumentError),
        (lambda path: list(PairFiles([path])), DocumentError),
        (lambda path: require_same_run(path, {"a": 1}, resume=True), ValueError),
        (lambda path: where_of(path.read_text(encoding="utf-8")), ValueError),
        (lambda path: terminal_filter(path.read_text(encoding="utf-8")), ValueError),
    ],
)
def test_deep_json_is_refused(read: Callable[[Path], object], error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text(DEEP, encoding="utf-8")
    with pytest.raises(error) as caught:
        read(path)
    assert len(str(caught.value)) < 2_000


def test_an_upload_with_a_deep_record_is_erased(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "uploads")
    for name, record in {"deep": DEEP, "sound": "{}"}.items():
        (tmp_path / "uploads" / name).mkdir()
        (tmp_path / "uploads" / name / "job.json").write_text(record, encoding="utf-8")
    try:
        assert [record["id"] for record in spool.records()] == ["sound"]
    finally:
        spool.close()
    assert not (tmp_path / "uploads" / "deep").exists()
