"""Readers: any file gives documents that every later part can carry, or reasons; never another error."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.fuzz import samples
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target import Check, Target, require_short
from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents import list_parts, open_documents, read_part
from retrieval.errors import DocumentError
from retrieval.stores.payloads import checked_payload

LIMIT = 64 * 1024
_SETTINGS = (
    DocumentsConfig(max_file_bytes=LIMIT, max_line_bytes=LIMIT),
    DocumentsConfig(max_file_bytes=LIMIT, max_line_bytes=200),
    DocumentsConfig(max_file_bytes=100, max_line_bytes=LIMIT),
    DocumentsConfig(max_file_bytes=LIMIT, encoding="utf-8"),
    DocumentsConfig(max_file_bytes=LIMIT, encoding="latin-1"),
    DocumentsConfig(max_file_bytes=LIMIT, encoding="utf-16"),
    DocumentsConfig(max_file_bytes=LIMIT, encoding="shift_jis"),
    DocumentsConfig(max_file_bytes=LIMIT, text_column="body", id_column="name", metadata_columns=("year", "tags")),
)


def require_usable(documents: Sequence[Document], rejected: Sequence[Rejected]) -> None:
    """Fail unless every document can go on to the chunker and the store, and every refusal says why in bounds."""
    for number, document in enumerate(documents):
        assert document.text.strip(), f"document {number} has no text"
        assert document.id, f"document {number} has no id"
        for part in (document.id, document.text, document.title, document.source):
            part.encode("utf-8")
        assert len(document.title) <= 1_000, f"title of {len(document.title)} characters"
        assert "\n" not in document.title, "a title of several lines"
        checked_payload(document.metadata, number, document.id)
    keys = [document.key for document in documents]
    assert len(keys) == len(set(keys)), "two documents with one source"
    for each in rejected:
        assert each.reason.strip(), "a refusal without a reason"
        each.reason.encode("utf-8")
        assert len(each.reason) < 10_000, f"a reason of {len(each.reason)} characters"


def _read(folder: Path, extension: str, content: bytes, config: DocumentsConfig) -> list[Document]:
    path = folder / f"input{extension}"
    path.write_bytes(content)
    rejected: list[Rejected] = []
    try:
        documents = list(open_documents(path, config, on_rejected=rejected.append))
    except DocumentError as error:
        require_short(error, 20_000)
        return []
    require_usable(documents, rejected)
    assert documents or rejected, "nothing came of the file, and nobody said so"
    return documents


def _plain(extension: str, folder: Path, stack: ExitStack) -> Check:
    """The first byte says how to read, the others are the file."""

    def check(data: bytes) -> None:
        if data:
            _read(folder, extension, data[1:], _SETTINGS[data[0] % len(_SETTINGS)])

    return check


def _packed(extension: str, folder: Path, stack: ExitStack) -> Check:
    """As plain, through gzip; one in four has the packed bytes damaged."""

    def check(data: bytes) -> None:
        if len(data) < 3:
            return
        packed = bytearray(gzip.compress(data[3:], 1, mtime=0))
        if data[1] % 4 == 3:
            packed[data[2] % len(packed)] ^= data[1] | 1
        _read(folder, f"{extension}.gz", bytes(packed), _SETTINGS[data[0] % len(_SETTINGS)])

    return check


def _in_parts(folder: Path, stack: ExitStack) -> Check:
    """Lines read in parts give the documents of the whole file."""
    path = folder / "records.jsonl"

    def check(data: bytes) -> None:
        if len(data) < 2:
            return
        path.write_bytes(data[2:])
        config = DocumentsConfig(max_line_bytes=200 if data[0] % 4 == 3 else LIMIT)
        wanted, found = ([], []), ([], [])  # type: ignore[var-annotated]
        wanted[0].extend(open_documents(path, config, on_rejected=wanted[1].append))
        for part in list_parts(path, config, part_bytes=1 + data[1], on_rejected=found[1].append):
            found[0].extend(read_part(part, config, on_rejected=found[1].append))
        # An id that occurs twice is refused where it is seen to: in parts that may be later, by the writer.
        unique = list({each.source: each for each in reversed(found[0])}.values())[::-1]
        assert [each.text for each in wanted[0]] == [each.text for each in unique], "parts give other documents"
        assert [each.source for each in wanted[0]] == [each.source for each in unique], "parts give other sources"

    return check


def _warmed(folder: Path, extension: str, sample: bytes) -> DocumentsConfig:
    """Settings; a first file is read, because the process that converts takes long to start."""
    config = DocumentsConfig(max_file_bytes=4 * 2**20)
    assert _read(folder, extension, sample, config), f"the sample {extension} cannot be read"
    return config


def _archive(extension: str, sample: Callable[[], bytes], folder: Path, stack: ExitStack) -> Check:
    """A sound archive with one member replaced by the input, or patched with it, or the raw bytes damaged."""
    whole = sample()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(members)
    config = _warmed(folder, extension, whole)

    def check(data: bytes) -> None:
        choices = Choices(data)
        kind, name = choices.byte() % 4, choices.pick(names)
        at = choices.whole(0, 65535)
        if kind == 3:
            rest, raw = choices.rest(), bytearray(whole)
            at %= len(raw)
            raw[at : at + len(rest)] = rest
            _read(folder, extension, bytes(raw), config)
            return
        old, rest = members[name], choices.rest()
        at %= len(old) + 1
        new = {0: rest, 1: old[:at] + rest + old[at:], 2: old[:at] + rest + old[at + len(rest) :]}[kind]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, new if member == name else content)
        _read(folder, extension, packed.getvalue(), config)

    return check


def _patched(extension: str, sample: Callable[[], bytes], folder: Path, stack: ExitStack) -> Check:
    """A sound file with some bytes replaced, inserted or cut off."""
    whole = sample()
    config = _warmed(folder, extension, whole)

    def check(data: bytes) -> None:
        choices = Choices(data)
        kind, at = choices.byte() % 4, choices.whole(0, 65535) % len(whole)
        rest = choices.rest()
        new = {
            0: whole[:at] + rest + whole[at + len(rest) :],
            1: whole[:at] + rest + whole[at:],
            2: whole[:at] + rest,
            3: whole[: -at or None] + rest + whole[-at:][len(rest) :],
        }[kind]
        _read(folder, extension, new, config)

    return check


_SETTING_BYTES = tuple(bytes([number]) for number in range(len(_SETTINGS)))
_JSON = json.dumps({"_id": "a", "text": "copper pipe", "title": "T", "year": 2020, "tags": ["x", 1.5, None, True]})
_TEXTS: dict[str, tuple[str, ...]] = {
    ".txt": ("a line\nanother", "caf\u00e9 \u65e5\u672c\u8a9e", "\ufeffmark", "a\0b"),
    ".md": (
        "---\ntitle: 'A title'\n---\n# One\ntext\n\n## Two\n```\n# no heading\n```\n- item\n",
        "Head\n====\ntext\nSub\n---\n",
    ),
    ".rst": ("=====\nTitle\n=====\n\ntext\n\nPart\n----\nmore\n",),
    ".html": (
        "<html><head><title>T</title><meta charset=latin-1></head><body><nav>no</nav><main><h1>H</h1><p>a<br>b</p>"
        "<pre>x\n y</pre><table><tr><td>1<td>2</table><ul><li>i</ul></main><footer>f</footer></body></html>",
        '<?xml version="1.0" encoding="utf-16"?><p hidden>a<p role=navigation>b<script>c</script>d&amp;&#0;&#xD800;',
    ),
    ".json": (_JSON, f"[{_JSON}, {_JSON}]", f"{_JSON}\n{_JSON}", '{"text": "\\ud800", "n": 1e999}', "[" * 300),
    ".jsonl": (f"{_JSON}\n{_JSON}\n", '{"text": NaN}\n{"text": "a", "id": 12345678901234567890}\n\n{', "[1]\n2\n"),
    ".csv": ("id,text,year\n1,pipe,2020\n2,\"a,\n\"\"b\",x\n", "text;id\na;b\n", "text|n\na|1.5\n",
    "body,name,tags\na,b,c\n"),
    ".tsv": ("id\ttext\n1\tpipe\n", "text\ttext\n1\t2\n"),
}  # fmt: skip


def _seeds(extension: str, packed: bool = False) -> list[bytes]:
    start = b"\0\0" if packed else b""
    texts = [text.encode("utf-8", "surrogatepass") for text in _TEXTS[extension]]
    coded = [text.encode(name, "replace") for text in _TEXTS[extension] for name in ("utf-16", "latin-1")]
    return [head + start + text for head in _SETTING_BYTES for text in texts] + [b"\0" + start + text for text in coded]


TARGETS = [
    *(
        Target(
            f"read {extension}",
            "documents that can be stored, or a reason",
            partial(_plain, extension),
            partial(_seeds, extension),
            weight=1.5 if extension in {".html", ".json", ".csv"} else 1.0,
        )
        for extension in _TEXTS
    ),
    Target("read .jsonl.gz", "the same through gzip", partial(_packed, ".jsonl"), partial(_seeds, ".jsonl", True)),
    Target("read in parts", "the documents of the whole file", _in_parts, partial(_seeds, ".jsonl")),
    *(
        Target(
            f"read {extension}",
            "documents that can be stored, or a reason",
            partial(_archive, extension, sample),
            longest=256,
            slow=90,
            extra="markitdown",
        )
        for extension, sample in {
            ".docx": samples.docx,
            ".pptx": samples.pptx,
            ".xlsx": samples.xlsx,
            ".epub": samples.epub,
        }.items()
    ),
    Target("read .pdf", "the same", partial(_patched, ".pdf", samples.pdf), longest=256, slow=90, extra="markitdown"),
    Target("read .parquet", "the same", partial(_patched, ".parquet", samples.parquet), longest=64, extra="pyarrow"),
]
