"""Formats of the extra ``documents``, with files made by the packages that define them."""

from __future__ import annotations

import datetime
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz.samples import epub, pdf
from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents import open_documents
from retrieval.errors import DocumentError


def read(path: Path, **settings: Any) -> tuple[list[Document], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(open_documents(path, DocumentsConfig(**settings), on_rejected=rejected.append)), rejected


def need(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason=f"{module} of the extra documents is not installed")


def test_pdf(tmp_path: Path) -> None:
    need("markitdown")
    need("pdfminer")
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("A leaking pipe."))
    documents, rejected = read(path)
    assert rejected == []
    assert [(d.id, d.text.strip(), dict(d.metadata)) for d in documents] == [
        ("a.pdf", "A leaking pipe.", {"path": "a.pdf", "extension": ".pdf"})
    ]


def test_word(tmp_path: Path) -> None:
    need("markitdown")
    need("mammoth")
    docx = need("docx")
    file = docx.Document()
    file.add_heading("Pipes", level=1)
    file.add_paragraph("A leaking pipe.")
    file.save(str(tmp_path / "a.docx"))
    documents, rejected = read(tmp_path)
    assert rejected == []
    assert [(d.id, d.title, d.text.split()) for d in documents] == [
        ("a.docx", "Pipes", ["#", "Pipes", "A", "leaking", "pipe."])
    ]


def test_slides(tmp_path: Path) -> None:
    need("markitdown")
    pptx = need("pptx")
    file = pptx.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[1])
    slide.shapes.title.text = "Pipes"
    slide.placeholders[1].text = "A leaking pipe."
    file.save(str(tmp_path / "a.pptx"))
    documents, rejected = read(tmp_path)
    assert rejected == []
    assert [(d.id, d.title) for d in documents] == [("a.pptx", "Pipes")]
    assert "A leaking pipe." in documents[0].text


def test_spreadsheet(tmp_path: Path) -> None:
    need("markitdown")
    openpyxl = need("openpyxl")
    need("pandas")
    file = openpyxl.Workbook()
    file.active.title = "Stock"
    file.active.append(["part", "count"])
    file.active.append(["pipe", 3])
    file.save(tmp_path / "a.xlsx")
    documents, rejected = read(tmp_path)
    assert rejected == []
    assert [(d.id, d.title) for d in documents] == [("a.xlsx", "Stock")]
    assert "| pipe | 3 |" in documents[0].text


def test_book(tmp_path: Path) -> None:
    need("markitdown")
    (tmp_path / "a.epub").write_bytes(epub())
    documents, rejected = read(tmp_path)
    assert rejected == []
    assert [(d.id, d.title) for d in documents] == [("a.epub", "Plumbing")]
    assert "# Leaks\n\nA leaking pipe." in documents[0].text


@pytest.mark.parametrize("extension", [".pdf", ".docx", ".pptx", ".xlsx", ".epub"])
@pytest.mark.parametrize("content", [b"", b"not what it says", b"PK\x03\x04" + bytes(200), bytes(range(256)) * 8])
def test_damaged_office_files_are_reported(tmp_path: Path, extension: str, content: bytes) -> None:
    need("markitdown")
    (tmp_path / f"a{extension}").write_bytes(content)
    (tmp_path / "b.txt").write_text("still read")
    documents, rejected = read(tmp_path)
    assert [d.id for d in documents] == ["b.txt"]
    assert [r.source for r in rejected] == [str(tmp_path / f"a{extension}")]


def test_an_archive_that_unpacks_to_too_much_is_reported(tmp_path: Path) -> None:
    need("markitdown")
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 5_000_000)
    documents, rejected = read(tmp_path, max_file_bytes=1_000_000)
    assert documents == []
    assert rejected[0].reason.startswith("unpacks to 5,000,000 bytes")


def test_parquet(tmp_path: Path) -> None:
    pa = need("pyarrow")
    pq = need("pyarrow.parquet")
    table = pa.table(
        {
            "docid": [1, 2, 3, 1],
            "title": ["T", None, "", None],
            "text": ["one", "two", None, "again"],
            "score": [0.5, float("nan"), 1.0, 1.0],
            "day": [datetime.date(2020, 1, 2), None, None, None],
            "raw": [b"x", b"y", b"z", b""],
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    documents, rejected = read(path)
    assert documents == [
        Document("1", "one", "T", {"score": 0.5, "day": "2020-01-02"}, f"{path}#1"),
        Document("2", "two", "", {}, f"{path}#2"),
    ]
    assert [(r.source, r.reason) for r in rejected] == [
        (f"{path}#3", "record 3: column 'text' is empty"),
        (f"{path}#4", "record 4: the id '1' occurred before in this file"),
    ]


def test_parquet_cells_that_rows_share(tmp_path: Path) -> None:
    pa = need("pyarrow")
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(["one", "two"]))
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 1, 3], pa.int32()), texts)
    need("pyarrow.parquet").write_table(pa.table({"text": texts, "tags": tags}), tmp_path / "a.parquet")
    documents, rejected = read(tmp_path / "a.parquet", metadata_columns=("tags",))
    assert [(d.text, d.metadata.get("tags")) for d in documents] == [
        ("one", ["one"]),
        ("two", []),
        ("one", ["two", "one"]),
    ]
    assert rejected == []


def test_parquet_without_the_column_names_those_there_are(tmp_path: Path) -> None:
    pa = need("pyarrow")
    need("pyarrow.parquet").write_table(pa.table({"name": ["a"], "words": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(DocumentError, match="columns: 'name', 'words'"):
        read(tmp_path / "a.parquet")
    assert [d.text for d in read(tmp_path, text_column="words")[0]] == ["b"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", bytes(range(256)) * 2])
def test_damaged_parquet_is_reported(tmp_path: Path, content: bytes) -> None:
    need("pyarrow")
    (tmp_path / "a.parquet").write_bytes(content)
    documents, rejected = read(tmp_path)
    assert documents == []
    assert [r.source for r in rejected] == [str(tmp_path / "a.parquet")]


def test_a_missing_extra_is_reported_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.documents import converter

    converter._close_all()
    for module in ("markitdown", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.pdf").write_bytes(pdf("text"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "c.txt").write_text("still read")
    documents, rejected = read(tmp_path)
    assert [d.id for d in documents] == ["c.txt"]
    assert [Path(r.source).name for r in rejected] == ["a.pdf", "b.parquet"]
    assert all("pip install 'two-stage-retrieval[documents]'" in r.reason for r in rejected)
