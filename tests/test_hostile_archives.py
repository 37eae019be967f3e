"""Small files that unpack to more than the machine has, or keep a parser busy for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents import open_documents

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
LIMIT_MB = 96
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _needs_the_extra() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("docx", reason="the packages that write office files are not installed")


def read(path: Path, **settings: Any) -> tuple[list[Document], list[Rejected]]:
    rejected: list[Rejected] = []
    config = DocumentsConfig(**{"max_convert_mb": LIMIT_MB, **settings})
    return list(open_documents(path, config, on_rejected=rejected.append)), rejected


def word(path: Path, body: str, *, prolog: str = "") -> Path:
    """A Word file with these paragraphs."""
    import docx

    plain = path.with_suffix(".plain")
    docx.Document().save(str(plain))
    xml = f'<?xml version="1.0"?>{prolog}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, xml if name == "word/document.xml" else old.read(name))
    plain.unlink()
    return path


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def pdf(stream: bytes, filters: bytes) -> bytes:
    """A page whose contents are packed."""
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R>>",
        b"<</Length %d/Filter[%s]>>\nstream\n%s\nendstream" % (len(stream), filters, stream),
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        data
        + b"xref\n0 5\n0000000000 65535 f \n"
        + table
        + b"trailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(data)
    )


def sparse_sheet(path: Path) -> None:
    """Two cells, the first and the last that a sheet can have."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "first", "last"
    book.save(path)


def twice_packed_pdf(path: Path) -> None:
    """Four kilobytes that are a quarter of a gigabyte of blanks."""
    packer = zlib.compressobj(9)
    once = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    path.write_bytes(pdf(zlib.compress(once), b"/FlateDecode/FlateDecode"))


@pytest.mark.parametrize(
    ("name", "write"), [("a.xlsx", sparse_sheet), ("a.pdf", twice_packed_pdf)], ids=["sparse-sheet", "packed-twice"]
)
def test_what_needs_too_much_memory_is_rejected_and_the_rest_is_read(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 6_000
    word(tmp_path / "b.docx", paragraph("Tides rise."))
    documents, rejected = read(tmp_path)
    assert [document.text for document in documents] == ["Tides rise."]
    [reason] = [item.reason for item in rejected]
    assert reason == f"needs more memory to convert than documents.max_convert_mb ({LIMIT_MB})"


def test_what_takes_too_long_is_rejected_and_the_rest_is_read(tmp_path: Path) -> None:
    word(tmp_path / "a.docx", "<w:p>" * 100_000 + "</w:p>" * 100_000)
    word(tmp_path / "b.docx", paragraph("Tides rise."))
    _, [rejected] = read(tmp_path / "a.docx", max_convert_s=1.5)
    assert rejected.reason == "takes longer to convert than documents.max_convert_s (1.5)"
    assert [document.text for document in read(tmp_path / "b.docx")[0]] == ["Tides rise."]


def shared_cell(path: Path) -> None:
    """A cell of a megabyte that two thousand rows point to."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["tide " * 200_000]))
    pq.write_table(pa.table({"text": cells}), path, compression="zstd")


def packed_cell(path: Path) -> None:
    """One cell of a quarter of a gigabyte."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["tide " * 50_000_000]}), path, compression="zstd", use_dictionary=False)


@pytest.mark.parametrize("write", [shared_cell, packed_cell])
def test_a_parquet_table_that_needs_too_much_memory_is_rejected(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 60_000
    (tmp_path / "b.txt").write_text("Tides rise.")
    documents, rejected = read(tmp_path)
    assert [document.text for document in documents] == ["Tides rise."]
    [reason] = [item.reason for item in rejected]
    assert reason == (
        f"cannot be read after row 0: needs more memory to read than documents.max_convert_mb ({LIMIT_MB})"
    )


def test_a_row_of_a_parquet_table_has_a_bound_and_the_others_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"Tide {number}." for number in range(600)]
    texts[299] = "x" * 5_000
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    documents, [rejected] = read(tmp_path / "a.parquet", max_line_bytes=4_096)
    assert rejected.source.endswith("a.parquet#300")
    assert rejected.reason.startswith("record 300: has 5,0")
    assert rejected.reason.endswith("bytes, more than documents.max_line_bytes (4,096)")
    assert [document.id for document in documents] == [f"a.parquet#{n}" for n in range(1, 601) if n != 300]


def test_many_small_values_count_as_what_they_take_where_they_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": ["Tides rise.", "Tides fall."], "flags": [[True], [True] * 1_000_000]})
    pq.write_table(table, tmp_path / "a.parquet")
    documents, [rejected] = read(tmp_path / "a.parquet", max_line_bytes=1_000_000)
    assert [document.id for document in documents] == ["a.parquet#1"]
    assert rejected.source.endswith("a.parquet#2")


@pytest.mark.parametrize("kind", ["list", "list of two", "map"])
def test_a_value_that_a_row_names_many_times_counts_each_time(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shared = pa.DictionaryArray.from_arrays([0] * 20, ["x" * 1_000])
    column = {
        "list": lambda: pa.ListArray.from_arrays([0, 20], shared),
        "list of two": lambda: pa.ListArray.from_arrays([0, 10], pa.FixedSizeListArray.from_arrays(shared, 2)),
        "map": lambda: pa.MapArray.from_arrays([0, 20], [str(number) for number in range(20)], shared),
    }[kind]()
    table = pa.table({"text": ["Tides rise."], "notes": column})
    assert table.nbytes < 4_000
    pq.write_table(table, tmp_path / "a.parquet")
    documents, [rejected] = read(tmp_path / "a.parquet", max_line_bytes=15_000)
    assert not documents
    assert rejected.reason.endswith("bytes, more than documents.max_line_bytes (15,000)")


def test_values_of_every_nested_kind_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "text": pa.array(["Tides rise.", "Tides fall."]),
        "map": pa.array([[("a", 1), ("b", None)], None], pa.map_(pa.string(), pa.int64())),
        "lists": pa.array([[["a"], []], None], pa.list_(pa.list_(pa.string()))),
        "two": pa.array([[1.5, 2.5], None], pa.list_(pa.float64(), 2)),
        "struct": pa.array([{"a": {"b": [1]}}, None], pa.struct({"a": pa.struct({"b": pa.list_(pa.int8())})})),
        "view": pa.array([["a"], None], pa.list_view(pa.string())),
        "category": pa.array(["a", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    documents, rejected = read(tmp_path / "a.parquet")
    assert not rejected
    assert [document.text for document in documents] == ["Tides rise.", "Tides fall."]


def test_a_table_that_is_left_in_the_middle_does_not_disturb_the_next(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("a", "b"):
        pq.write_table(pa.table({"text": [f"{name} {number}" for number in range(600)]}), tmp_path / f"{name}.parquet")
    opened = [open_documents(tmp_path / f"{name}.parquet", DocumentsConfig(), on_rejected=print) for name in "ab"]
    first, second = (iter(documents) for documents in opened)
    assert [next(first).text, next(second).text] == ["a 0", "b 0"]
    del first
    assert [document.text for document in second] == [f"b {number}" for number in range(1, 600)]
    assert len(read(tmp_path / "a.parquet")[0]) == 600


LAUGHS = "".join(f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, 10))


@pytest.mark.parametrize(
    ("prolog", "text"),
    [
        (f'<!DOCTYPE d [<!ENTITY a0 "lol">{LAUGHS}]>', "&a9;"),
        (f'<!DOCTYPE d [<!ENTITY a "{"x" * 100_000}">]>', "&a;" * 20_000),
        ('<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/hostname">]>', "&a;"),
    ],
    ids=["billion-laughs", "quadratic", "external-file"],
)
def test_entities_are_not_expanded(tmp_path: Path, prolog: str, text: str) -> None:
    documents, rejected = read(word(tmp_path / "a.docx", paragraph(text), prolog=prolog))
    assert documents == []
    assert "cannot be converted from .docx" in rejected[0].reason


def test_names_that_lead_out_of_an_archive_write_nothing(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = word(inside / "a.docx", paragraph("Tides rise."))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../escaped.txt", "outside")
        archive.writestr("/tmp/../escaped.txt", "outside")
        archive.writestr("word/media/../../../../escaped.txt", "outside")
        link = zipfile.ZipInfo("word/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    before = sorted(tmp_path.rglob("*"))
    documents, _ = read(inside)
    assert [document.text for document in documents] == ["Tides rise."]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_lies_about_sizes_is_no_larger_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 5_000_000)
    size = (5_000_000).to_bytes(4, "little")
    data = path.read_bytes()
    assert data.count(size) == 2  # before the member, and in the directory
    path.write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    documents, rejected = read(path, max_file_bytes=1_000_000)
    assert documents == []
    assert len(rejected) == 1


def test_members_that_share_their_bytes_count_one_by_one(tmp_path: Path) -> None:
    """Many entries of the directory point at one member: a small file, and the sum is what it unpacks to."""
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 1_000_000)
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry, tail = data[start:end], bytearray(data[end:])
    tail[8:12] = (300).to_bytes(2, "little") * 2
    tail[12:16] = (300 * len(entry)).to_bytes(4, "little")
    path.write_bytes(data[:start] + entry * 300 + bytes(tail))
    documents, [rejected] = read(path, max_file_bytes=10_000_000)
    assert documents == []
    assert rejected.reason.startswith("unpacks to 300,000,000 bytes")


ORPHAN = """
import os, signal
from retrieval.documents.converter import converter
print(converter(64)._running().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_process_that_converts_ends_with_the_one_that_asks() -> None:
    command = [sys.executable, "-c", ORPHAN]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    child = int(killed.stdout)
    deadline = time.monotonic() + 20
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    # Whose parent is gone waits for whoever reaps orphans here.
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
