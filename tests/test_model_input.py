"""Model folders as input from others: what they can name, how large they may be, and what never happens."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from benchmarks.fuzz import samples
from retrieval import model_files
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.rerankers import OnnxCrossEncoder, read_calibration
from retrieval.rerankers.graphs import model_digest
from retrieval.rerankers.pairs import PairTokenizer, read_model_config
from retrieval.token_tables.tensors import map_tensors
from tests.pair_graphs import write_length, write_shared_words

DEEP = "[" * 100_000


@pytest.fixture
def static(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    folder.mkdir()
    samples.static_model(folder)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_shared_words(tmp_path / "pairs")


class Trap:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def graph_with_data(place: str, *, kind: str = "Identity", domain: str = "", opset: int = 17) -> bytes:
    """A graph that adds up ten numbers which lie in a file beside it, or wherever it says."""
    numbers = TensorProto(name="numbers", data_type=TensorProto.FLOAT, dims=[10, 1], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": place, "offset": "0", "length": "40"}.items():
        entry = numbers.external_data.add()
        entry.key, entry.value = key, value
    nodes = [
        helper.make_node("Gather", ["numbers", "input_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows"], ["all"]),
        helper.make_node("Reshape", ["all", "shape"], ["one"]),
        helper.make_node(kind, ["one"], ["logits"], domain=domain),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    shape = onnx.numpy_helper.from_array(np.array([1, 1]), "shape")
    output = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "g", inputs, output, [numbers, shape])
    sets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(helper.make_model(made, opset_imports=sets, ir_version=8).SerializeToString())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Numbers that no model has any business with."""
    path = tmp_path / "secret.bin"
    path.write_bytes(np.full(10, 42, np.float32).tobytes())
    return path


# Where the files lie.


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_link_out_of_the_folder_is_not_followed(name: str, static: Path, tmp_path: Path) -> None:
    shutil.move(static / name, tmp_path / name)
    (static / name).symlink_to(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name} is a link out of the folder of the model, to .*; put a copy"):
        StaticEncoder.open(static)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_nor_by_a_cross_encoder(name: str, pairs: Path, tmp_path: Path) -> None:
    shutil.move(pairs / name, tmp_path / name)
    (pairs / name).symlink_to(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name} is a link out of the folder"):
        OnnxCrossEncoder(pairs).score("copper", ["pipe"])


def test_the_folder_itself_may_be_a_link_and_links_may_stay_inside(static: Path, tmp_path: Path) -> None:
    shutil.move(static / "config.json", static / "settings.json")
    (static / "config.json").symlink_to("settings.json")
    (tmp_path / "latest").symlink_to(static)
    assert StaticEncoder.open(tmp_path / "latest").dim == 8


def snapshot_of(folder: Path, cache: Path) -> Path:
    """A model as the cache of the hub keeps it: links to blobs."""
    blobs, snapshot = cache / "models--owner--model" / "blobs", cache / "models--owner--model" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in folder.iterdir() if path.is_file())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_links_of_the_hub_cache_lead_to_its_blobs(static: Path, pairs: Path, tmp_path: Path) -> None:
    assert StaticEncoder.open(snapshot_of(static, tmp_path / "one")).dim == 8
    assert OnnxCrossEncoder(snapshot_of(pairs, tmp_path / "two")).score("copper", ["copper pipe"]).tolist() == [1.0]


def test_but_not_to_the_blobs_of_another_model(static: Path, tmp_path: Path) -> None:
    snapshot = snapshot_of(static, tmp_path / "hub")
    other = tmp_path / "hub" / "models--other--model" / "blobs"
    other.mkdir(parents=True)
    shutil.copy(static / "config.json", other / "0")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../models--other--model/blobs/0")
    with pytest.raises(ModelError, match=r"config\.json is a link out of the folder"):
        StaticEncoder.open(snapshot)


def test_links_in_a_circle_and_what_is_no_file(static: Path) -> None:
    (static / "config.json").unlink()
    (static / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config\.json is no file"):
        StaticEncoder.open(static)
    (static / "tokenizer.json").unlink()
    (static / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        StaticEncoder.open(static)


# Weights: safetensors, as large as the file, of known kinds.


def write_header(path: Path, header: dict[str, Any], data: bytes = b"\0" * 16) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]},
        {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]},
        {"dtype": "O", "shape": [2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4]},
    ],
)
def test_sizes_and_kinds_are_checked_against_the_file_before_anything_is_allocated(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        map_tensors(write_header(tmp_path / "w.safetensors", {"w": entry}))


@pytest.mark.parametrize("size", [0, 7, 2**63, 2**64 - 1, 2**40])
def test_the_stated_size_of_the_header_is_not_believed(size: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b"{}" * 50)
    with pytest.raises(ModelError, match="is not a complete safetensors file"):
        map_tensors(path)


def test_a_deep_header(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    text = b'{"w":' + DEEP.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ModelError, match="is not a complete safetensors file"):
        map_tensors(path)


def test_a_pickle_is_never_opened(static: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    pickle.loads(trap)
    assert mark.exists()  # the trap works
    mark.unlink()
    for name in ("pytorch_model.bin", "model.safetensors", "tokenizer.json", "config.json"):
        folder = tmp_path / name.replace(".", "-")
        shutil.copytree(static, folder)
        (folder / name).write_bytes(trap)
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError):
            StaticEncoder.open(folder)
    assert not mark.exists()


# Tokenizers and settings: bounded in size and depth.


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "modules.json"])
def test_deep_files_of_a_static_model(name: str, static: Path) -> None:
    (static / name).write_text(DEEP, encoding="utf-8")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        StaticEncoder.open(static)


@pytest.mark.parametrize(
    ("name", "limit", "opened"),
    [
        ("config.json", "MAX_CONFIG_BYTES", lambda folder: StaticEncoder.open(folder)),
        ("tokenizer.json", "MAX_TOKENIZER_BYTES", lambda folder: StaticEncoder.open(folder)),
        ("tokenizer.json", "MAX_TOKENIZER_BYTES", lambda folder: PairTokenizer(folder)),
        ("config.json", "MAX_CONFIG_BYTES", lambda folder: read_model_config(folder)),
        ("calibration.json", "MAX_CONFIG_BYTES", lambda folder: read_calibration(folder)),
    ],
)
def test_large_files_are_refused_unread(
    name: str, limit: str, opened: Callable[[Path], object], static: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (static / name).open("ab") as file:
        file.truncate(getattr(model_files, limit) + 1)  # sparse: it takes no disk

    def read(self: Path, *arguments: object, **options: object) -> bytes:
        raise AssertionError(f"{self} was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(Path, "read_text", read)
    with pytest.raises(ModelError, match=rf"{name} has [0-9,]+ bytes; such a file has at most"):
        opened(static)


@pytest.mark.parametrize(("key", "value"), [("max_tokens", 10**30), ("max_characters", 2**31), ("max_tokens", -1)])
def test_numbers_that_no_text_reaches_are_refused(key: str, value: int, static: Path) -> None:
    config = json.loads((static / "config.json").read_text(encoding="utf-8"))
    (static / "config.json").write_text(json.dumps({**config, key: value}), encoding="utf-8")
    with pytest.raises(ModelError, match=f"{key} is .*, not null or a number of at least 1 and below"):
        StaticEncoder.open(static)


def test_ids_beyond_the_table_are_refused(static: Path) -> None:
    content = json.loads((static / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["pipe"] = 4_000_000_000
    (static / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="ids up to 4000000000"):
        StaticEncoder.open(static)


def test_a_padding_token_that_is_none_is_not_used(pairs: Path) -> None:
    (pairs / "config.json").write_text(json.dumps({"pad_token_id": 2**70}), encoding="utf-8")
    assert OnnxCrossEncoder(pairs).score("copper", ["copper pipe", "star"]).tolist() == [1.0, 0.0]


def test_a_panic_of_the_tokenizer_library_is_a_model_error(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # noqa: N818: this is what pyo3 calls it
        pass

    def panic(path: str) -> Tokenizer:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(Tokenizer, "from_file", panic)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer: index out of bounds"):
        StaticEncoder.open(static)


def test_a_frame_with_tokens_that_are_not_there_is_a_model_error(pairs: Path) -> None:
    content = json.loads((pairs / "tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"]["special_tokens"] = {}
    (pairs / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer"):
        PairTokenizer(pairs)


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordPiece", "vocab": {"copper": 0, "a": 1}, "unk_token": "[NO]"},
        {"type": "WordLevel", "vocab": {"copper": 0}, "unk_token": "[NO]"},
        {"type": "Unigram", "vocab": [["copper", -1.0]], "unk_id": None},
        {"type": "BPE", "vocab": {"c": 0}, "merges": [], "unk_token": "[NO]"},
    ],
    ids=lambda model: model["type"],
)
def test_a_tokenizer_that_cannot_say_unknown_is_refused_when_it_is_opened(static: Path, model: dict[str, Any]) -> None:
    content = json.loads((static / "tokenizer.json").read_text(encoding="utf-8"))
    extra = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100} if "Piece" in model["type"] else {}
    content |= {"model": {**model, **extra}, "added_tokens": []}
    (static / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer: .*(?i:unk)"):
        StaticEncoder.open(static)


def test_settings_of_other_types(static: Path, pairs: Path) -> None:
    config = json.loads((static / "config.json").read_text(encoding="utf-8"))
    (static / "config.json").write_text(json.dumps({**config, "unknown": ["skip"]}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"unknown is \['skip'\], not 'skip' or 'keep'"):
        StaticEncoder.open(static)
    content = {"model_type": [], "max_position_embeddings": 64}
    (pairs / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert PairTokenizer(pairs).max_tokens == 64


# Graphs: nothing outside of their folder, no operators of their own, known inputs and outputs.


def test_data_beside_the_graph_is_read(pairs: Path, outside: Path) -> None:
    shutil.copy(outside, pairs / "numbers.bin")
    (pairs / "model.onnx").write_bytes(graph_with_data("numbers.bin"))
    assert OnnxCrossEncoder(pairs).score("copper", ["pipe"]).tolist() == [5 * 42.0]


@pytest.mark.parametrize("place", ["../secret.bin", "here/../../secret.bin", "{}", "link.bin"])
def test_data_outside_of_the_folder_is_not_read(place: str, pairs: Path, outside: Path) -> None:
    (pairs / "here").mkdir()
    (pairs / "link.bin").symlink_to(outside)
    (pairs / "model.onnx").write_bytes(graph_with_data(place.format(outside)))
    with pytest.raises(ModelError, match="cannot load"):
        OnnxCrossEncoder(pairs).score("copper", ["pipe"])


def test_operators_of_their_own_are_not_known(pairs: Path, outside: Path) -> None:
    shutil.copy(outside, pairs / "numbers.bin")
    (pairs / "model.onnx").write_bytes(graph_with_data("numbers.bin", kind="Special", domain="of.mine"))
    with pytest.raises(ModelError, match="cannot load"):
        OnnxCrossEncoder(pairs).score("copper", ["pipe"])


def test_a_set_of_operators_from_the_future(pairs: Path, outside: Path) -> None:
    shutil.copy(outside, pairs / "numbers.bin")
    (pairs / "model.onnx").write_bytes(graph_with_data("numbers.bin", opset=999))
    with pytest.raises(ModelError, match="cannot load"):
        OnnxCrossEncoder(pairs).score("copper", ["pipe"])


def test_inputs_of_another_name(pairs: Path) -> None:
    model = onnx.load(pairs / "model.onnx")
    for node in model.graph.node:
        node.input[:] = ["other" if name == "token_type_ids" else name for name in node.input]
    for part in model.graph.input:
        part.name = "other" if part.name == "token_type_ids" else part.name
    onnx.save(model, pairs / "model.onnx")
    with pytest.raises(ModelError, match=r"takes .*'other'.*, not input_ids"):
        OnnxCrossEncoder(pairs).score("copper", ["pipe"])


def test_a_graph_that_is_too_large(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.rerankers.cross_encoder.MAX_GRAPH_BYTES", 100)
    with pytest.raises(ModelError, match=r"model\.onnx has [0-9,]+ bytes; such a file has at most 100"):
        OnnxCrossEncoder(pairs).score("copper", ["pipe"])


def test_a_pipe_in_place_of_a_graph_is_not_waited_for(tmp_path: Path) -> None:
    folder = write_length(tmp_path / "pipe")
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(ModelError, match="no cross-encoder"):
        OnnxCrossEncoder(folder)
    with pytest.raises(ModelError, match="no graph"):
        model_digest(folder)


def test_a_table_whose_rows_are_no_numbers(static: Path) -> None:
    rows = np.zeros((10, 8), np.float32)
    rows[3, 2] = np.nan
    save_file({"embeddings": rows}, str(static / "model.safetensors"))
    with pytest.raises(ModelError, match="row 3 of the table of vectors is not finite"):
        StaticEncoder.open(static)
