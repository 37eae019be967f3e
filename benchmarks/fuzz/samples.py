"""Small sound files of the binary formats, to begin with."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors


def docx() -> bytes:
    """A Word file with a heading, a paragraph, a table and a link."""
    import docx as library

    file = library.Document()
    file.add_heading("Pipes", level=1)
    file.add_paragraph("A leaking pipe.")
    table = file.add_table(rows=2, cols=2)
    table.cell(0, 0).text = "part"
    packed = io.BytesIO()
    file.save(packed)
    return packed.getvalue()


def pptx() -> bytes:
    """One slide with a title and a list."""
    import pptx as library

    file = library.Presentation()
    slide = file.slides.add_slide(file.slide_layouts[1])
    slide.shapes.title.text = "Pipes"
    slide.placeholders[1].text = "A leaking pipe."
    packed = io.BytesIO()
    file.save(packed)
    return packed.getvalue()


def xlsx() -> bytes:
    """One sheet of two rows."""
    import openpyxl

    file = openpyxl.Workbook()
    file.active.title = "Stock"
    file.active.append(["part", "count"])
    file.active.append(["pipe", 3])
    packed = io.BytesIO()
    file.save(packed)
    return packed.getvalue()


def epub() -> bytes:
    """A book of one chapter."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles>'
            "</container>",
        )
        archive.writestr(
            "book.opf",
            '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
            '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Plumbing</dc:title></metadata>'
            '<manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="a"/></spine></package>',
        )
        archive.writestr(
            "a.xhtml",
            '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Leaks</h1><p>A leaking pipe.</p></body></html>',
        )
    return packed.getvalue()


def pdf(text: str = "A leaking pipe.") -> bytes:
    """One page with one line, written by hand, with a cross-reference table that is right."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 4 0 R>>>>/Contents 5 0 R>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d>>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(data)
    return data + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def parquet() -> bytes:
    """Three rows in two groups, with values of every nested kind, categories and nulls."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "text": ["copper pipe", None, "star"],
            "tags": [["x", "y"], [], None],
            "year": [1.5, float("nan"), 3.0],
            "box": [{"a": 1}, None, {"a": 2}],
            "notes": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "place": pa.array([[1.5, 2.5], None, [0.0, -1.0]], pa.list_(pa.float32(), 2)),
            "kind": pa.array(["x", None, "x"]).dictionary_encode(),
        }
    )
    packed = io.BytesIO()
    pq.write_table(table, packed, row_group_size=2)
    return packed.getvalue()


def static_model(folder: Path) -> None:
    """A static model of twelve tokens, with two of which nothing is known."""
    words = ["[PAD]", "[UNK]", "copper", "pipe", "leak", "star", "##s", "a", "b", "c"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = np.random.default_rng(1).integers(-127, 128, (len(words), 8)).astype(np.int8)
    tensors = {"embeddings": rows, "scales": np.full(len(words), 0.01, np.float32)}
    save_file(tensors, str(folder / "model.safetensors"))
    config = {"format": "two-stage-static", "version": 1, "name": "tiny", "dim": 8, "unknown": "skip", "max_tokens": 64}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def pair_tokenizer(folder: Path) -> None:
    """What the tokenizer of a cross-encoder comes with."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "copper", "pipe", "leak", "star"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(words[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"max_position_embeddings": 64, "pad_token_id": 0}', encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32}', encoding="utf-8")


def graph() -> bytes:
    """A cross-encoder in ONNX whose logit is the number of tokens."""
    from onnx import TensorProto, helper, numpy_helper

    constants = [numpy_helper.from_array(np.array([1]), "row")]
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "row"], ["count"], keepdims=1),
        helper.make_node("Cast", ["count"], ["logits"], to=TensorProto.FLOAT),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "pairs", inputs, output, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
