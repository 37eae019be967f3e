"""Files, folders and Python values into documents, hostile ones included."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents import from_python, open_documents
from retrieval.errors import DocumentError


def read(path: Path, **settings: Any) -> tuple[list[Document], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(open_documents(path, DocumentsConfig(**settings), on_rejected=rejected.append)), rejected


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(*records: Mapping[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def reasons(rejected: list[Rejected]) -> list[str]:
    return [entry.reason for entry in rejected]


def test_one_file_is_one_document(tmp_path: Path) -> None:
    path = write(tmp_path / "pipe.txt", "A leaking pipe.\r\n")
    documents, rejected = read(path)
    assert documents == [
        Document(
            id="pipe.txt",
            text="A leaking pipe.\r\n",
            title="",
            metadata={"path": "pipe.txt", "extension": ".txt"},
            source=str(path),
        )
    ]
    assert rejected == []


def test_folders_are_walked_in_order_with_relative_ids(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/deep/er/x.md", "c.bin", ".hidden.txt", "node_modules/n.txt"):
        write(tmp_path / name, f"text of {name}")
    documents, rejected = read(tmp_path)
    assert [d.id for d in documents] == ["a/deep/er/x.md", "a/z.txt", "b.txt"]
    assert [d.source for d in documents] == [str(tmp_path / d.id) for d in documents]
    assert rejected == []


def test_ignore_patterns_of_configuration_and_file(tmp_path: Path) -> None:
    for name in ("keep.txt", "draft.txt", "old/a.txt", "sub/draft.txt", "sub/keep.txt"):
        write(tmp_path / name, "text")
    write(tmp_path / ".retrievalignore", "# drafts\n/old/\n!sub/draft.txt\n")
    documents, _ = read(tmp_path, ignore=("draft.txt",))
    assert [d.id for d in documents] == ["keep.txt", "sub/draft.txt", "sub/keep.txt"]


def test_unusable_roots_are_errors(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "text")
    os.mkfifo(tmp_path / "pipe.txt")
    for path, words in (("missing", "No such file"), (file / "below", "Not a directory"), ("nul\0", "null byte")):
        with pytest.raises(DocumentError, match=words):
            read(tmp_path / path)
    with pytest.raises(DocumentError, match="neither a file nor a folder"):
        read(tmp_path / "pipe.txt")
    with pytest.raises(DocumentError, match="'utf-9' is not known"):
        read(file, encoding="utf-9")


def test_special_files_and_links_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "a.txt", "text")
    write(tmp_path / "secret.txt", "secret")
    os.mkfifo(root / "pipe.txt")
    (root / "inside.txt").symlink_to(root / "a.txt")
    (root / "loop").symlink_to(root)
    (root / "nothing.txt").symlink_to(root / "missing")
    (root / "outside").symlink_to(tmp_path)
    (root / "outside.txt").symlink_to(tmp_path / "secret.txt")
    documents, rejected = read(root)
    assert [d.id for d in documents] == ["a.txt"]
    assert [(Path(r.source).name, r.reason.split(",")[0]) for r in rejected] == [
        ("nothing.txt", "is a symbolic link to nothing"),
        ("outside", "is a symbolic link out of the folder"),
        ("outside.txt", "is a symbolic link out of the folder"),
    ]


def test_unknown_extension_is_reported_only_for_a_named_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", "text")
    assert read(tmp_path) == ([], [])
    documents, rejected = read(path)
    assert documents == []
    assert rejected[0].source == str(path)
    assert rejected[0].reason.startswith("unsupported extension .xyz")


def test_names_that_are_not_utf8_stay_apart(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.txt", b"caf\xe8.txt"):
        try:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write("text")
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    documents, rejected = read(tmp_path)
    assert [d.id for d in documents] == ["caf\\xe8.txt", "caf\\xe9.txt"]
    assert [d.source.encode() for d in documents] == [os.path.join(folder, d.id.encode()) for d in documents]
    assert rejected == []


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("a.md", "intro\n\n## Pipes ##\n", "Pipes"),
        ("a.markdown", "---\nauthor: x\ntitle: 'Front'\n---\n# Pipes\n", "Front"),
        ("a.rst", "=====\nPipes\n=====\n\ntext", "Pipes"),
        ("a.md", "no heading", ""),
        ("a.txt", "# Not markup", ""),
    ],
)
def test_titles(tmp_path: Path, name: str, content: str, title: str) -> None:
    documents, _ = read(write(tmp_path / name, content))
    assert [(d.title, d.text) for d in documents] == [(title, content)]


TEXT = "Größe der Übergänge: ein schöner Tag, an dem ältere Bäume blühen und Vögel über die Straße ziehen. " * 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("extension", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".csv", ".json"])
def test_encodings_are_recognised(tmp_path: Path, encoding: str, extension: str) -> None:
    forms = {
        ".txt": TEXT,
        ".jsonl": json.dumps({"text": TEXT}, ensure_ascii=False) + "\n",
        ".csv": f'text\n"{TEXT}"\n',
        ".json": json.dumps([{"text": TEXT}], ensure_ascii=False),
    }
    data = forms[extension.removesuffix(".gz")].encode(encoding)
    path = write(tmp_path / ("a" + extension), gzip.compress(data) if extension.endswith(".gz") else data)
    documents, rejected = read(path)
    assert [d.text for d in documents] == [TEXT]
    assert rejected == []


def test_configured_encoding_is_binding(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", b"\xe4\xf6"), encoding="latin-1")[0][0].text == "äö"
    documents, rejected = read(write(tmp_path / "b.txt", b"ab\xff"), encoding="utf-8")
    assert documents == []
    assert reasons(rejected) == ["is not valid utf-8 (byte 2); see documents.encoding"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        ("\u3000\u2003\n".encode(), "is empty: no text but whitespace was found"),
        (b"text\0text", "looks binary: it holds NUL bytes or control characters"),
        (b"\x7fELF\x02\x01\x01\x03" + bytes(range(1, 32)), "looks binary: it holds NUL bytes or control characters"),
        (b"x" * 2001, "is larger than documents.max_file_bytes (2,000 bytes)"),
    ],
)
def test_unusable_text_files(tmp_path: Path, content: bytes, reason: str) -> None:
    write(tmp_path / "a.txt", content)
    write(tmp_path / "b.txt", "still read")
    documents, rejected = read(tmp_path, max_file_bytes=2000)
    assert [d.id for d in documents] == ["b.txt"]
    assert rejected == [Rejected(str(tmp_path / "a.txt"), reason)]


def test_damaged_and_exploding_gzip(tmp_path: Path) -> None:
    write(tmp_path / "bomb.txt.gz", gzip.compress(b"x" * 5_000_000))
    write(tmp_path / "junk.txt.gz", b"not gzip at all")
    write(tmp_path / "short.txt.gz", gzip.compress(os.urandom(4000).hex().encode())[:-1000])
    documents, rejected = read(tmp_path, max_file_bytes=100_000)
    assert documents == []
    assert [r.reason.split(":")[0] for r in rejected] == [
        "is larger than documents.max_file_bytes (100,000 bytes)",
        "is not a sound gzip stream",
        "ends in the middle of its gzip stream",
    ]


def test_records_before_the_damage_stand(tmp_path: Path) -> None:
    content = lines(*({"id": n, "text": os.urandom(500).hex()} for n in range(400)))
    write(tmp_path / "a.jsonl.gz", gzip.compress(content.encode())[:-20_000])
    documents, rejected = read(tmp_path)
    assert 200 < len(documents) < 400
    assert [d.id for d in documents] == [str(n) for n in range(len(documents))]
    assert reasons(rejected) == ["ends in the middle of its gzip stream"]


def test_json_lines(tmp_path: Path) -> None:
    content = lines(
        {
            "_id": 7,
            "title": "T",
            "text": "one",
            "year": 2020,
            "ok": True,
            "score": 0.5,
            "tags": ["a"],
            "no": None,
            "d": {},
        },
        {"contents": "two"},
    )
    path = write(tmp_path / "a.jsonl", content)
    documents, rejected = read(tmp_path)
    assert documents == [
        Document("7", "one", "T", {"year": 2020, "ok": True, "score": 0.5, "tags": ["a"]}, f"{path}#7"),
        Document("a.jsonl#2", "two", "", {}, f"{path}#2"),
    ]
    assert type(documents[0].metadata["ok"]) is bool
    assert rejected == []


def test_broken_lines_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    good = '{"text": "göôd"}\n'.encode()
    bad = [b"{broken\n", b"[1]\n", b'{"text": NaN}\n', b'{"text": "\xff"}\n', b'{"text": 5}\n', b'{"x": "y"}\n']
    bad += [b'{"text": " "}\n', b"[" * 100_000 + b"\n", b'{"text": "a", "n": 1e999}\n', b'{"id": [1], "text": "a"}\n']
    path = write(tmp_path / "a.jsonl", good + good.join(bad) + good)
    documents, rejected = read(path)
    assert [d.id for d in documents] == [f"a.jsonl#{number}" for number in range(1, 22, 2)]
    assert [r.source for r in rejected] == [f"{path}#{number}" for number in range(2, 22, 2)]
    parts = ["valid JSON", "JSON list", "NaN is not", "valid UTF-8", "holds a int", "columns: 'x'"]
    parts += ["is empty", "valid JSON", "is inf", "id column 'id' holds a list"]
    for part, reason in zip(parts, reasons(rejected), strict=True):
        assert part in reason


def test_a_huge_line_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "first"}\n{"text": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "last"}\n')
    tracemalloc.start()
    documents, rejected = read(path, max_line_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(d.id, d.text) for d in documents] == [("a.jsonl#1", "first"), ("a.jsonl#3", "last")]
    assert rejected == [
        Rejected(f"{path}#2", "line 2: has 50,000,013 bytes, more than documents.max_line_bytes (1,000,000)")
    ]
    assert peak < 8_000_000


@pytest.mark.parametrize("extension", [".jsonl", ".json", ".csv"])
def test_a_large_file_is_streamed(tmp_path: Path, extension: str) -> None:
    text = "leaking pipe " * 38_000  # 0.5 MB
    record = json.dumps({"text": text})
    first, separator, last = {
        ".jsonl": ("", "\n", "\n"),
        ".json": ("[", ",", "]"),
        ".csv": ("text\n", "\n", "\n"),
    }[extension]
    path = tmp_path / ("a" + extension)
    with path.open("w", encoding="utf-8") as file:
        file.write(first)
        for number in range(200):
            file.write((separator if number else "") + (text if extension == ".csv" else record))
        file.write(last)
    tracemalloc.start()
    rejected: list[Rejected] = []
    count = sum(1 for d in open_documents(path, on_rejected=rejected.append) if len(d.text) == len(text))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, rejected) == (200, [])
    assert peak < 10_000_000 < 95_000_000 < path.stat().st_size
    path.unlink()


def test_json_files(tmp_path: Path) -> None:
    write(tmp_path / "list.json", '\n [{"id": "a", "body": "one", "n": 1.5}, 3, {"body": "two"}]')
    path = write(tmp_path / "object.json", '{"title": "T", "text": "three", "year": 2020}')
    write(tmp_path / "several.json", '{"text": "four"}\n{"text": "five"}\n')
    documents, rejected = read(tmp_path)
    assert [(d.id, d.text) for d in documents] == [
        ("a", "one"),
        ("list.json#3", "two"),
        ("object.json", "three"),
        ("several.json#1", "four"),
        ("several.json#2", "five"),
    ]
    assert dict(documents[0].metadata) == {"n": 1.5}
    assert documents[2] == Document("object.json", "three", "T", {"year": 2020}, str(path))
    assert [(r.source, r.reason) for r in rejected] == [
        (f"{tmp_path / 'list.json'}#2", "record 2: holds a JSON int, not an object")
    ]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('[{"text": "one"}, {"text": "tw', "after record 1"),
        ('[{"text": "one"}, {"text": "' + "x" * 400_000 + '"}]', "documents.max_line_bytes (10,000)"),
    ],
)
def test_a_broken_list_keeps_what_was_read(tmp_path: Path, content: str, part: str) -> None:
    documents, rejected = read(write(tmp_path / "a.json", content), max_line_bytes=10_000)
    assert [d.text for d in documents] == ["one"]
    assert len(rejected) == 1
    assert part in rejected[0].reason


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is empty"),
        ("[]", "without records"),
        ("{}", "no column named text"),
        ('"text"', "JSON str"),
        ("{" + '"a":{' * 200_000, "not valid JSON"),
        ('{"text": "' + "x" * 10_000 + '"}', "documents.max_file_bytes (10,000 bytes)"),
        ("\0\0\0\0", "looks binary"),
    ],
)
def test_unusable_json(tmp_path: Path, content: str, part: str) -> None:
    documents, rejected = read(write(tmp_path / "a.json", content), max_file_bytes=10_000 if "x" in content else 2**26)
    assert documents == []
    assert len(rejected) == 1
    assert part in rejected[0].reason


def test_lone_surrogates_never_reach_a_document(tmp_path: Path) -> None:
    content = '{"id": "\\ud800", "text": "a\\udfffb \\ud83d\\ude00", "title": "\\ud800", "k\\ud800": "\\udc00"}\n'
    for name in ("a.jsonl", "b.json"):
        documents, rejected = read(write(tmp_path / name, content if name == "a.jsonl" else f"[{content}]"))
        assert rejected == []
        for part in (documents[0].id, documents[0].text, documents[0].title, documents[0].source):
            part.encode()
        json.dumps(documents[0].metadata, ensure_ascii=False).encode()
        assert documents[0].text.endswith("b 😀")


def test_a_repeated_id_is_reported(tmp_path: Path) -> None:
    documents, rejected = read(write(tmp_path / "a.jsonl", lines({"id": 1, "text": "a"}, {"id": "1", "text": "b"})))
    assert [d.text for d in documents] == ["a"]
    assert reasons(rejected) == ["record 2: the id '1' occurred before in this file"]


def test_a_record_with_nothing_but_a_title_is_its_title(tmp_path: Path) -> None:
    documents, _ = read(write(tmp_path / "a.jsonl", lines({"text": "", "title": "Pipes"})))
    assert [(d.text, d.title) for d in documents] == [("Pipes", "Pipes")]


def test_of_a_beir_folder_only_the_corpus_is_read(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "corpus.jsonl", lines({"_id": "d1", "title": "T", "text": "one", "metadata": {}}))
        write(tmp_path / folder / "readme.md", "# About")
    write(tmp_path / "one" / "queries.jsonl", lines({"_id": "q1", "text": "query"}))
    write(tmp_path / "one" / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    assert [d.id for d in read(tmp_path / "one")[0]] == ["d1"]
    assert [d.id for d in read(tmp_path)[0]] == ["d1", "d1", "two/readme.md"]


def test_csv_values_and_quoted_newlines(tmp_path: Path) -> None:
    content = "ID,Title,Text,year,price,zip,ok,note\n"
    content += '01,T,"two\nlines, ""quoted""",2020,2.50,00123,true,\n\n2,,x,1e3,-3,+1,no,n\n'
    path = write(tmp_path / "a.csv", content)
    documents, rejected = read(path)
    assert documents == [
        Document(
            "01",
            'two\nlines, "quoted"',
            "T",
            {"year": 2020, "price": 2.5, "zip": "00123", "ok": True},
            f"{path}#01",
        ),
        Document("2", "x", "", {"year": "1e3", "price": -3, "zip": "+1", "ok": "no", "note": "n"}, f"{path}#2"),
    ]
    assert rejected == []


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ";"), ("a.csv", "|"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_delimiters(tmp_path: Path, name: str, delimiter: str) -> None:
    rows = [("id", "text"), ("1", "one, two"), ("2", "three, four")]
    content = "".join(delimiter.join(row) + "\r\n" for row in rows)
    documents, rejected = read(write(tmp_path / name, content))
    assert [(d.id, d.text) for d in documents] == [("1", "one, two"), ("2", "three, four")]
    assert rejected == []


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    content = b'id,text\n1,"a\nb"\n2,b,c\n3\n4,nul\0\n5,"x"y\n6,\xff\n7,' + b"x" * 600 + '\n8,läßt\n9,"open\n'.encode()
    path = write(tmp_path / "a.csv", content)
    documents, rejected = read(path, max_line_bytes=500)
    assert [(d.id, d.text) for d in documents] == [("1", "a\nb"), ("8", "läßt")]
    assert [r.source.removeprefix(f"{path}#") for r in rejected] == [f"line {n}" for n in (4, 5, 6, 7, 8, 9, 11)]
    parts = [
        "has 3 fields",
        "has 1 fields",
        "NUL byte",
        "expected after",
        "valid UTF-8",
        "has 603 bytes",
        "end of data",
    ]
    for part, reason in zip(parts, reasons(rejected), strict=True):
        assert part in reason


def test_long_cells_are_read(tmp_path: Path) -> None:
    documents, rejected = read(write(tmp_path / "a.csv", "text\n" + "x" * 500_000 + "\n"))
    assert [len(d.text) for d in documents] == [500_000]
    assert rejected == []


def test_a_table_without_the_column_names_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "name,words\na,b\n")
    with pytest.raises(DocumentError, match=r"a\.csv: no column 'x' .*text_column.*'name', 'words'"):
        read(path, text_column="x")
    with pytest.raises(DocumentError, match=r"set documents\.text_column; columns: 'name', 'words'"):
        read(path)
    with pytest.raises(DocumentError, match="metadata_columns asks; columns: 'name', 'words'"):
        read(path, text_column="words", metadata_columns=("year",))
    assert [d.text for d in read(path, text_column="words")[0]] == ["b"]
    documents, rejected = read(tmp_path)
    assert documents == []
    assert [r.source for r in rejected] == [str(path)]


def test_configured_columns(tmp_path: Path) -> None:
    record = {"key": "k", "head": "H", "words": "w", "text": "no", "a": 1, "b": {"deep": [1]}}
    documents, _ = read(
        write(tmp_path / "a.jsonl", lines(record)),
        text_column="words",
        id_column="key",
        title_column="head",
        metadata_columns=("b", "missing"),
    )
    assert documents == [Document("k", "w", "H", {"b": {"deep": [1]}}, f"{tmp_path / 'a.jsonl'}#k")]


def test_html(tmp_path: Path) -> None:
    page = """<!DOCTYPE html><html><head><title> Leaks &amp;
    drips </title><style>p {}</style></head><body><nav>Home</nav><h1>Pipe <em>repair</em></h1>
    <script>alert("x")</script><p>Caf&eacute;&nbsp;&#128512; one<br>two.<p>Open<b>bold</b>
    text <div hidden>gone</div><ul><li>first<li><p>second</ul><table><tr><th>a<th>b</tr><tr><td>1<td>2</table>
    <pre># not a heading
  indented</pre><h2></h2><h2>Next</h2>end<footer>(c)</footer></body></html>"""
    documents, rejected = read(write(tmp_path / "a.html", page))
    assert rejected == []
    assert documents[0].title == "Leaks & drips"
    assert documents[0].text == (
        "# Pipe repair\n\nCafé\xa0😀 one\ntwo.\n\nOpenbold text\n\n- first\n- second\n\na | b\n1 | 2\n\n"
        "```\n# not a heading\n  indented\n```\n\n## Next\n\nend"
    )


def test_html_main_part_boilerplate_and_encoding(tmp_path: Path) -> None:
    write(tmp_path / "a.htm", "<body><div>menu</div><main><p>kept</p></main><div>ads</div>")
    write(tmp_path / "b.html", "<nav>only <a href=x>links</a></nav>")
    write(tmp_path / "c.html", '<meta charset="iso-8859-7"><p>αβγ</p>'.encode("iso-8859-7"))
    write(tmp_path / "d.html", '<?xml version="1.0" encoding="latin-1"?><p>déjà</p>'.encode())
    write(tmp_path / "e.html", "<script>only()</script>")
    documents, rejected = read(tmp_path)
    assert [d.text for d in documents] == ["kept", "only links", "αβγ", "déjà"]
    assert [Path(r.source).name for r in rejected] == ["e.html"]


@pytest.mark.parametrize(
    "markup", ["<div>" * 100_000, "<" * 300_000, "<!--" * 100_000, "<a " * 100_000, "</p>" * 100_000]
)
def test_hostile_markup_ends(tmp_path: Path, markup: str) -> None:
    documents, rejected = read(write(tmp_path / "a.html", "<p>text</p>" + markup))
    assert len(documents) + len(rejected) == 1
    assert all(d.text.startswith("text") for d in documents)


def python(items: Any) -> tuple[list[Document], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(from_python(items, rejected.append)), rejected


def test_python_values() -> None:
    given = Document("d", "text", "T", {"n": 1}, "somewhere")
    documents, rejected = python(
        [
            given,
            ("p", "pair"),
            {"id": 5, "text": "dict", "title": "T", "year": 2020, "metadata": {"tags": ["a"]}},
            {"_id": "b", "text": "x", "day": datetime.date(2020, 1, 2), "f": np.float32(0.5), "big": 2**70},
        ]
    )
    assert documents == [
        given,
        Document("p", "pair"),
        Document("5", "dict", "T", {"tags": ["a"], "year": 2020}),
        Document("b", "x", "", {"day": "2020-01-02", "f": 0.5, "big": "1180591620717411303424"}),
    ]
    assert rejected == []


@pytest.mark.parametrize(
    ("item", "source", "reason"),
    [
        ({"text": "a"}, "item 2", "has no id"),
        (("", "a"), "item 2", "the id is empty"),
        ((None, "a"), "item 2", "has no id"),
        ((True, "a"), "True", "the id is a bool, not a string"),
        (("x", 3), "x", "the text is a int, not a string"),
        (("x", " \n"), "x", "the text is empty"),
        ({"id": "x"}, "x", "has no text"),
        ({"id": "x", "text": "a", "title": 3}, "x", "the title is a int, not a string"),
        ({"id": "x", "text": "a", "n": float("nan")}, "x", "metadata 'n' is nan, which JSON cannot carry"),
        ({"id": "x", "text": "a", "n": [float("inf")]}, "x", "metadata 'n' is inf, which JSON cannot carry"),
        ({"id": "x", "text": "a", "n": {1, 2}}, "x", "metadata 'n' is a set, which is not a JSON value"),
        ({"id": "x", "text": "a", 3: 4}, "x", "the metadata key 3 is a int, not a string"),
        (("first", "again"), "first", "the id 'first' occurred before"),
        (Document("x", "a", metadata={"n": object()}), "x", "metadata 'n' is a object, which is not a JSON value"),
    ],
)
def test_unusable_python_values(item: Any, source: str, reason: str) -> None:
    documents, rejected = python([("first", "a"), item, ("last", "a")])
    assert [d.id for d in documents] == ["first", "last"]
    assert rejected == [Rejected(source, reason)]


def test_python_surrogates_and_titles_are_repaired() -> None:
    documents, _ = python([{"id": "a\ud800", "text": "\ud83d\ude00\udc00", "title": "two\nlines " * 500}])
    assert documents[0].id == "a\ufffd"
    assert documents[0].text == "😀\ufffd"
    assert len(documents[0].title) == 1000
    assert "\n" not in documents[0].title


@pytest.mark.parametrize("items", ["text", b"text", {"id": "a"}, Document("a", "b"), 5, None])
def test_wrong_containers_are_type_errors(items: Any) -> None:
    with pytest.raises(TypeError, match="expected an iterable"):
        python(items)


@pytest.mark.parametrize("item", ["ab", 5, None, ("a",), ("a", "b", "c")])
def test_wrong_items_are_type_errors(item: Any) -> None:
    with pytest.raises(TypeError, match="item 1 is a"):
        python([item])
