"""A source cut into parts gives the documents of the whole, and a sample tells how long its texts are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.average_length import estimated_length
from retrieval.chunking import Chunker
from retrieval.config import Bm25Config, ChunkingConfig, DocumentsConfig, parse_config
from retrieval.datatypes import Document, IngestProgress, Rejected
from retrieval.documents import list_parts, open_documents, read_part, sample_documents
from retrieval.encoders import Bm25Encoder
from retrieval.errors import DocumentError

WORDS = ("tide", "moon", "bread", "dough", "guitar", "whale", "prime", "rain", "garden", "river")


def sentence(number: int, words: int) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=words)) + "."


def write_lines(path: Path, records: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def by_parts(path: Path, part_bytes: int) -> tuple[list[Document], list[Rejected], int]:
    rejected: list[Rejected] = []
    parts = list(list_parts(path, part_bytes=part_bytes, on_rejected=rejected.append))
    assert [part.number for part in parts] == list(range(len(parts)))
    documents = [document for part in parts for document in read_part(part, on_rejected=rejected.append)]
    return documents, rejected, len(parts)


def whole(path: Path) -> tuple[list[Document], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(open_documents(path, on_rejected=rejected.append)), rejected


@pytest.mark.parametrize("part_bytes", [1, 7, 100, 1000, 10**6])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_json_lines_keep_their_numbers_in_every_cut(tmp_path: Path, part_bytes: int, mark: bytes) -> None:
    lines = [json.dumps({"text": sentence(n, n % 7 + 1)}).encode() for n in range(60)]
    lines[10], lines[20], lines[30] = b"", b"not json", '{"text": "größer"}'.encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(mark + b"\n".join(lines))
    documents, rejected, count = by_parts(path, part_bytes)
    assert (documents, rejected) == whole(path)
    assert len(documents) == 58
    assert documents[-1].id == "a.jsonl#60"
    # The blank line is as short as a line can be: with 7 bytes it goes with the next one.
    assert count in {1: [60], 7: [59], 100: range(10, 30), 1000: range(2, 5), 10**6: [1]}[part_bytes]
    assert rejected[0].source.endswith("a.jsonl#21")


def test_parquet_is_cut_at_row_groups(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([{"text": sentence(n, 5)} for n in range(100)])
    pq.write_table(table, path, row_group_size=10)
    documents, rejected, count = by_parts(path, 1)
    assert (documents, rejected, count) == (*whole(path), 10)
    assert documents[99].id == "a.parquet#100"
    assert by_parts(path, 10**6)[2] == 1


def test_small_files_are_put_together_in_order(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text("x" * 100)
    write_lines(tmp_path / "10a.jsonl", [{"text": "y" * 80} for _ in range(20)])
    (tmp_path / "30.bin").write_bytes(b"\0")
    documents, rejected, count = by_parts(tmp_path, 1000)
    assert (documents, rejected) == whole(tmp_path)
    assert len(documents) == 50
    # 00 to 09 and 10 (11 files of 100 bytes), two stretches of lines, 19 files.
    assert count == 2 + 2 + 2


def test_other_encodings_and_formats_are_read_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        "".join(json.dumps({"text": "größe"}, ensure_ascii=False) + "\n" for _ in range(50)).encode("utf-16")
    )
    assert by_parts(path, 100) == (*whole(path), 1)
    csv = tmp_path / "b.csv"
    csv.write_text("text\n" + '"two\nlines"\n' * 50)
    assert by_parts(csv, 100) == (*whole(csv), 1)
    binary = tmp_path / "c.jsonl"
    binary.write_bytes(b"\0\1\2" * 1000)
    assert by_parts(binary, 100) == (*whole(binary), 1)


def test_unusable_parts_and_roots_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot open"):
        list_parts(tmp_path / "none", part_bytes=1, on_rejected=print)
    with pytest.raises(ValueError, match="part_bytes is at least 1, not 0"):
        list_parts(tmp_path, part_bytes=0, on_rejected=print)
    table = tmp_path / "a.csv"
    table.write_text("a,b\n1,2\n")
    (part,) = list_parts(table, part_bytes=1, on_rejected=print)
    with pytest.raises(DocumentError, match="no column named text"):
        list(read_part(part, on_rejected=print))


def estimate(documents: Iterable[tuple[Document, float]]) -> float:
    chunker = Chunker(ChunkingConfig(), lambda text: len(text.split()))
    length = estimated_length(documents, chunker, Bm25Encoder(Bm25Config()))
    assert length is not None
    return length


def exact(path: Path) -> float:
    return estimate((document, 1.0) for document in whole(path)[0])


# Three quarters of the documents have 10 words and stand at the beginning, the others have 100: the mean is 32.5.
GROWING = [{"text": sentence(n, 10 if n < 6000 else 100)} for n in range(8000)]


def test_a_sample_of_lines_sees_the_end_of_the_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", GROWING)
    sample = list(sample_documents(path))
    assert exact(path) == 32.5
    assert estimate(sample) == pytest.approx(32.5, rel=0.05)
    assert len(sample) < 6000
    assert sample == list(sample_documents(path))


def test_a_sample_of_shards_weighs_them_by_what_they_hold(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", GROWING[:6000])
    write_lines(tmp_path / "b.jsonl", GROWING[6000:])
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text(sentence(number, 10))
    assert estimate(sample_documents(tmp_path)) == pytest.approx(exact(tmp_path), rel=0.05)


def test_a_sample_of_a_parquet_table_sees_all_of_its_groups(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(GROWING), path, row_group_size=400)
    assert estimate(sample_documents(path)) == pytest.approx(32.5, rel=0.05)


def test_a_sample_of_many_files_is_spread_over_them(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:04}.txt").write_text(sentence(number, 10 if number < 1500 else 100))
    sample = list(sample_documents(tmp_path))
    assert len(sample) == 1024
    assert estimate(sample) == pytest.approx(32.5, rel=0.1)


def test_a_sample_leaves_out_what_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ten words")
    (tmp_path / "b.txt").write_bytes(b"\0" * 100)
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    assert [document.id for document, _ in sample_documents(tmp_path)] == ["a.txt"]
    assert list(sample_documents(tmp_path / "c.csv", DocumentsConfig())) == []


def test_an_ingest_of_a_growing_file_weighs_nothing_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", GROWING[4000:])
    stages: list[str] = []

    def note(progress: IngestProgress) -> None:
        stages.append(progress.stage)

    with TwoStagePipeline.open(config=parse_config({"store": {"kind": "memory"}})) as pipeline:
        pipeline.ingest(path, on_progress=note)
        assert pipeline.manifest.average_length == pytest.approx(55, rel=0.05)
        assert pipeline.manifest.terms / pipeline.manifest.passages == 55
    assert "sampling" in stages
    assert "reweighting" not in stages
    with TwoStagePipeline.open(config=parse_config({"store": {"kind": "memory"}})) as pipeline:
        pipeline.ingest(whole(path)[0], on_progress=note)
        assert pipeline.manifest.average_length == 55
    assert "reweighting" in stages, "the documents are too much alike for this test to show anything"
