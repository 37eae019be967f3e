"""What a corpus of real files throws at an ingest: each fault has its own message, and nothing else is lost."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from retrieval.config import parse_config
from retrieval.datatypes import IngestReport
from retrieval.errors import (
    DocumentError,
    IndexMismatchError,
    RetrievalError,
    StoreBusyError,
    StoreCorruptError,
)

GOOD = {"tides.txt": "The moon causes the tides.", "bread.md": "# Bread\n\nYeast makes dough rise."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = tmp_path / "documents"
    documents.mkdir()
    for name, text in GOOD.items():
        (documents / name).write_text(text, encoding="utf-8")
    return documents


def ingest(folder: Path, index: Path) -> IngestReport:
    with TwoStagePipeline.open(index) as pipeline:
        return pipeline.ingest(folder)


def reasons(report: IngestReport) -> dict[str, str]:
    return {Path(item.source).name: item.reason for item in report.rejected}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("nothing.txt", b"", "empty"),
        ("blank.md", b" \n\t\n", "empty"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 8, "binary"),
    ],
)
def test_an_unusable_file_is_rejected_and_the_rest_goes_in(
    folder: Path, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (folder / name).write_bytes(content)
    report = ingest(folder, tmp_path / "index")
    assert report.added == len(GOOD)
    assert list(reasons(report)) == [name]
    assert reason in reasons(report)[name]


def test_one_broken_line_costs_one_record(folder: Path, tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "text": "first record"}',
        '{"id": "b", "text": "cut off',
        '{"id": "c", "text": "third record"}',
    ]
    (folder / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report = ingest(folder, tmp_path / "index")
    assert report.added == len(GOOD) + 2
    [(source, reason)] = [(item.source, item.reason) for item in report.rejected]
    assert "2" in source + reason
    assert "JSON" in reason


def test_a_line_of_megabytes_is_indexed_or_named(tmp_path: Path) -> None:
    chosen = random.Random(5)
    words = ["tide", "moon", "harbour", "current", "sail", "anchor", "storm", "reef"]
    line = " ".join(chosen.choices(words, k=1_000_000))
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "long.txt").write_text(line + " lighthouse", encoding="utf-8")
    (documents / "long.jsonl").write_text(
        json.dumps({"id": "big", "text": "x" * (17 * 2**20)}) + "\n" + json.dumps({"id": "small", "text": "a pier"}),
        encoding="utf-8",
    )
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        report = pipeline.ingest(documents)
        assert report.added == 2
        assert pipeline.search("lighthouse", top_k=1, rerank=False)[0].document_id == "long.txt"
        assert pipeline.search("pier", top_k=1, rerank=False)[0].document_id == "small"
    [rejected] = report.rejected
    assert "long.jsonl" in rejected.source
    assert "16" in rejected.reason
    assert report.passages > 1000


def test_a_table_without_the_named_column_says_which_there_are(folder: Path, tmp_path: Path) -> None:
    table = folder / "table.csv"
    table.write_text("name,notes\nann,hello world\n", encoding="utf-8")
    config = parse_config({"documents": {"text_column": "body"}})
    with TwoStagePipeline.open(tmp_path / "index", config) as pipeline:
        with pytest.raises(DocumentError, match=r"body.*name.*notes"):
            pipeline.ingest(table)
        report = pipeline.ingest(folder)
        assert report.added == len(GOOD)
        assert "body" in reasons(report)["table.csv"]


def test_a_missing_source_leaves_the_index_as_it_is(folder: Path, tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest(folder)
        before = pipeline.manifest
        with pytest.raises(DocumentError, match="nowhere"):
            pipeline.ingest(tmp_path / "nowhere", sync=True)
        assert pipeline.manifest == before
        assert pipeline.search("tides")[0].document_id == "tides.txt"


def test_an_index_of_another_encoder_names_both(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "index")
    with pytest.raises(IndexMismatchError) as caught:
        TwoStagePipeline.open(tmp_path / "index", parse_config({"encoder": {"dimensions": 64}}))
    assert "256 dims" in str(caught.value)
    assert "64 dims" in str(caught.value)
    assert "--rebuild" in str(caught.value)


def test_a_second_writer_is_told_who_holds_the_index(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "index")
    program = (
        "import sys, time; from pipelines import TwoStagePipeline;"
        "p = TwoStagePipeline.open(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "index")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreBusyError, match=str(holder.pid)):
            TwoStagePipeline.open(tmp_path / "index")
        holder.kill()
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        assert pipeline.manifest.documents == len(GOOD)


def test_a_deleted_segment_is_noticed_and_the_rest_of_the_folder_kept(tmp_path: Path) -> None:
    documents = [(f"d{number}", f"document number {number} about harbour {number % 7}") for number in range(300)]
    index = tmp_path / "index"
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest(documents)
        pipeline.store.optimize()
    for segment in (index / "generations/1/engine" / "segments").iterdir():
        shutil.rmtree(segment)
    with pytest.raises(StoreCorruptError) as caught:
        TwoStagePipeline.open(index)
    assert "segments has no " in str(caught.value)
    assert "retrieval repair" in str(caught.value)
    assert (index / "manifest.json").is_file()


def test_a_damaged_manifest_is_named(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "index")
    (tmp_path / "index" / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(RetrievalError, match=r"manifest\.json"):
        TwoStagePipeline.open(tmp_path / "index")
