from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.config import RerankConfig
from retrieval.errors import MissingExtraError, ModelError
from retrieval.protocols import Reranker
from retrieval.rerankers import OnnxCrossEncoder, TorchCrossEncoder, open_reranker
from tests.hub_folders import CROSS_ENCODERS
from tests.pair_graphs import write_length, write_rounded_sum, write_separators, write_shared_words

OURS: dict[str, Any] = {"format": "two-stage-reranker", "version": 1, "name": "shared-words"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shared_words(tmp_path / "model", **OURS, max_length=32)


def test_scores_by_hand_in_input_order(folder: Path) -> None:
    texts = ["copper pipe pipe leak", "", "star", "copper " * 5, "pipe"]
    scores = OnnxCrossEncoder(folder).score("copper pipe", texts)
    assert scores.dtype == np.float32
    assert scores.tolist() == [3.0, 0.0, 0.0, 5.0, 1.0]


def test_it_is_a_reranker_with_the_name_of_its_configuration(folder: Path) -> None:
    reranker = OnnxCrossEncoder(str(folder))
    assert isinstance(reranker, Reranker)
    assert reranker.name == "shared-words"


def test_without_a_name_it_has_that_of_its_folder(tmp_path: Path) -> None:
    assert OnnxCrossEncoder(write_shared_words(tmp_path / "some-model")).name == "some-model"


def test_nothing_to_score(folder: Path) -> None:
    scores = OnnxCrossEncoder(folder).score("copper", [])
    assert (scores.shape, scores.dtype) == ((0,), np.float32)


def test_one_string_is_not_a_list_of_texts(folder: Path) -> None:
    with pytest.raises(TypeError, match="not a string"):
        OnnxCrossEncoder(folder).score("copper", "copper")


def test_hostile_texts_are_scored(folder: Path) -> None:
    texts = ["\x00\x01", "\ud800 copper", "\u2063", "copper " * 200_000, "x" * 1_000_000, "\n" * 50]
    assert OnnxCrossEncoder(folder).score("copper", texts).tolist() == [0, 1, 0, 28, 0, 0]
    assert OnnxCrossEncoder(folder).score("", ["copper", ""]).tolist() == [0, 0]
    assert OnnxCrossEncoder(folder).score("\ud800", ["copper"]).tolist() == [0]


def test_neither_side_can_smuggle_in_special_tokens(tmp_path: Path) -> None:
    reranker = OnnxCrossEncoder(write_separators(tmp_path / "model"))
    assert reranker.score("[SEP] pipe", ["pipe", "[SEP]", "pipe [SEP] [CLS] leak[SEP] "]).tolist() == [2, 2, 2]


def test_only_the_text_is_cut(folder: Path) -> None:
    # 32 tokens: three special ones, one of the query, 28 of the text.
    reranker = OnnxCrossEncoder(folder)
    assert reranker.score("pipe", ["copper " * 27 + "pipe", "copper " * 28 + "pipe"]).tolist() == [1, 0]
    assert reranker.readable_query("pipe") == "pipe"


def test_a_long_query_is_cut_to_half_and_says_so(folder: Path) -> None:
    reranker = OnnxCrossEncoder(folder)
    query = "star " * 15 + "copper night"
    assert reranker.readable_query(query) == "star " * 15 + "copper"
    # 32 tokens less three special ones and 16 of the query leave 13 of the text.
    assert reranker.score(query, ["copper " * 20, "night " * 20]).tolist() == [13, 0]
    assert reranker.readable_query("x" * 10**6) == "x" * 2048


@pytest.mark.parametrize(("asked", "read"), [(10, 10), (32, 32), (1000, 32), (None, 32)])
def test_max_tokens_narrows_and_never_widens(asked: int | None, read: int, tmp_path: Path) -> None:
    reranker = OnnxCrossEncoder(write_length(tmp_path / "model", **OURS, max_length=32), max_tokens=asked)
    assert reranker.score("pipe", ["copper " * 100]).tolist() == [read]


@pytest.mark.parametrize(
    ("config", "tokenizer", "read"),
    [
        ({}, {}, 512),
        ({"max_position_embeddings": 40}, {}, 40),
        ({"max_position_embeddings": 42, "model_type": "xlm-roberta"}, {}, 40),
        ({"max_position_embeddings": 514, "model_type": "xlm-roberta"}, {"model_max_length": 48}, 48),
        ({"max_position_embeddings": 64}, {"model_max_length": int(1e30)}, 64),
        ({"max_length": 20, "max_position_embeddings": 64}, {}, 64),
    ],
    ids=["unstated", "positions", "shifted", "tokenizer", "boundless", "generation setting"],
)
def test_the_length_of_hub_models(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], read: int, tmp_path: Path
) -> None:
    folder = write_length(tmp_path / "model", **config)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert OnnxCrossEncoder(folder).score("pipe", ["copper " * 1000]).tolist() == [read]


def test_two_classes_give_the_difference(tmp_path: Path) -> None:
    reranker = OnnxCrossEncoder(write_shared_words(tmp_path / "model", tail="two"))
    assert reranker.score("copper pipe", ["copper pipe pipe", "star", "pipe"]).tolist() == [3, 0, 1]


def test_three_classes_are_refused(tmp_path: Path) -> None:
    reranker = OnnxCrossEncoder(write_shared_words(tmp_path / "model", tail="three"), threads=1)
    with pytest.raises(ModelError, match=r"shape \(1, 3\) for 1 pair, not 1 or 2 logits each"):
        reranker.score("copper", ["copper", "pipe"])


def test_logits_must_be_finite(tmp_path: Path) -> None:
    reranker = OnnxCrossEncoder(write_shared_words(tmp_path / "damaged", tail="nan"))
    assert reranker.score("copper", ["copper"]).tolist() == [1]
    with pytest.raises(ModelError, match="damaged gives nan for text 1"):
        reranker.score("copper", ["copper", "star"])


def test_scores_of_an_int8_graph_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    import onnxruntime

    folder = write_rounded_sum(tmp_path / "model")
    texts = ["copper pipe", "bread bread", "copper", "star night leak"]
    reranker = OnnxCrossEncoder(folder)
    alone = [float(reranker.score("pipe", [text])[0]) for text in texts]
    assert reranker.score("pipe", texts).tolist() == alone
    assert reranker.score("pipe", texts[::-1]).tolist() == alone[::-1]

    # The graph itself does depend on it: [CLS] pipe [SEP] copper [SEP] alone, then beside a batch neighbour.
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    pair, neighbour = [2, 5, 3, 4, 3], [2, 5, 3, 9, 3]
    runs = [session.run(None, {"input_ids": rows, "attention_mask": np.ones_like(rows)})[0][0, 0]
            for rows in (np.array([pair]), np.array([pair, neighbour]))]  # fmt: skip
    assert runs[0] == alone[2]
    assert runs[0] != runs[1]


@pytest.mark.parametrize("place", ["onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_qint8_avx512_vnni.onnx"])
def test_graphs_are_found_where_the_hub_has_them(place: str, tmp_path: Path) -> None:
    reranker = OnnxCrossEncoder(write_shared_words(tmp_path / "model", file=place))
    assert reranker.score("pipe", ["pipe pipe"]).tolist() == [2]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_one_model(threads: int, folder: Path) -> None:
    reranker = OnnxCrossEncoder(folder, threads=threads)
    queries = ["copper", "pipe", "leak", "star"] * 8
    texts = ["copper", "pipe pipe", "leak leak leak", "star star star star"]
    expected = {"copper": [1, 0, 0, 0], "pipe": [0, 2, 0, 0], "leak": [0, 0, 3, 0], "star": [0, 0, 0, 4]}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda query: reranker.score(query, texts).tolist(), queries))
    assert answers == [expected[query] for query in queries]


def test_nothing_is_loaded_before_it_is_used(folder: Path) -> None:
    program = (
        "import sys\nfrom retrieval.rerankers import OnnxCrossEncoder, TorchCrossEncoder\n"
        "reranker = OnnxCrossEncoder(sys.argv[1]); TorchCrossEncoder(sys.argv[1])\n"
        "print('onnxruntime' in sys.modules, reranker.score('pipe', []).size, 'onnxruntime' in sys.modules)\n"
        "print(reranker.score('pipe', ['pipe']).tolist(), 'onnxruntime' in sys.modules, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "False 0 False\n[1.0] True False\n"), done.stderr


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"\x00garbage\xff", b"{}", b""], ids=["binary", "json", "empty"])
def test_damaged_files_are_model_errors(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=file):
        OnnxCrossEncoder(folder).score("copper", ["pipe"])


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "is not readable JSON"),
        ("[]", "holds a list, not a dict"),
        (json.dumps({**OURS, "max_length": "long"}), "states a length of 'long' tokens"),
        (json.dumps({**OURS, "max_length": -3}), "states a length of -3 tokens"),
        (json.dumps({**OURS, "max_length": 4}), "reads 4 tokens, 3 of them special: too few"),
    ],
)
def test_bad_configurations_are_model_errors(config: str, told: str, folder: Path) -> None:
    (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ModelError, match=told):
        OnnxCrossEncoder(folder).score("copper", ["pipe"])


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none of model.onnx, onnx/model.onnx"):
        OnnxCrossEncoder(tmp_path / "nowhere")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer.json"):
        OnnxCrossEncoder(folder)


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        (OnnxCrossEncoder, "max_tokens"),
        (OnnxCrossEncoder, "threads"),
        (TorchCrossEncoder, "max_tokens"),
        (TorchCrossEncoder, "threads"),
        (TorchCrossEncoder, "batch_size"),
    ],
)
def test_numbers_start_at_one(kind: Any, argument: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"{argument} is at least 1, not 0"):
        kind(folder, **{argument: 0})


PAIRS = [
    "copper pipe leak",
    "",
    " ".join(["bright star galaxy night"] * 3),
    "sour bread dough, flour!",
    "zzz Copper",
    "the " * 79 + "the",
]


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_onnx_and_sentence_transformers_give_the_same_logits(name: str, hub_models: Mapping[str, Path]) -> None:
    by_onnx = OnnxCrossEncoder(hub_models[name]).score("copper pipe of bread", PAIRS)
    by_torch = TorchCrossEncoder(hub_models[name]).score("copper pipe of bread", PAIRS)
    assert by_torch.dtype == np.float32
    assert np.ptp(by_torch) > 0.1
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-4)


def test_torch_cuts_a_long_query_to_half(hub_models: Mapping[str, Path]) -> None:
    reranker = TorchCrossEncoder(next(iter(hub_models[name] for name in CROSS_ENCODERS)), max_tokens=20)
    query = "copper " * 6 + "star " * 6
    # Half of 20 tokens, less three special ones.
    assert reranker.readable_query(query) == "copper " * 6 + "star"
    assert reranker.readable_query("pipe") == "pipe"
    assert reranker.score(query, ["star"]).tolist() == reranker.score("copper " * 6 + "star", ["star"]).tolist()
    assert reranker.score(query, []).shape == (0,)
    assert reranker.score("\ud800", ["\ud800", ""]).shape == (2,)


def test_torch_names_what_it_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot load the cross-encoder"):
        TorchCrossEncoder(tmp_path).score("pipe", ["leak"])


def test_torch_is_told_to_run_no_code_and_to_read_safetensors_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = tmp_path / "model"
    folder.mkdir()
    mark = tmp_path / "mark"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (folder / "modeling.py").write_text(code, encoding="utf-8")
    names = {"AutoConfig": "modeling.Settings", "AutoModelForSequenceClassification": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}), encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"no safetensors")
    given: dict[str, Any] = {}
    whole = sentence_transformers.CrossEncoder

    def noted(*arguments: Any, **options: Any) -> Any:
        given.update(options)
        return whole(*arguments, **options)

    monkeypatch.setattr(sentence_transformers, "CrossEncoder", noted)
    with pytest.raises(ModelError, match="cannot load the cross-encoder"):
        open_reranker(RerankConfig(model=str(folder)), folder).score("a", ["b"])
    assert not mark.exists()
    assert given["trust_remote_code"] is False
    assert given["model_kwargs"] == {"use_safetensors": True}


def test_without_sentence_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "sentence_transformers":
            raise ModuleNotFoundError("blocked", name="sentence_transformers")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"two-stage-retrieval\[train\]"):
        TorchCrossEncoder("owner/model").score("pipe", ["leak"])


def test_a_folder_with_a_graph_is_run_by_onnx(folder: Path) -> None:
    config = RerankConfig(model="anything", max_tokens=16, threads=3)
    reranker = open_reranker(config, folder)
    assert isinstance(reranker, OnnxCrossEncoder)
    assert reranker.workers == 3
    assert reranker.score("pipe", ["copper " * 11 + "pipe", "copper " * 12 + "pipe"]).tolist() == [1, 0]
    assert isinstance(open_reranker(RerankConfig(model=str(folder))), OnnxCrossEncoder)


def test_anything_else_is_run_by_torch(tmp_path: Path) -> None:
    assert isinstance(open_reranker(RerankConfig(model="x"), tmp_path), TorchCrossEncoder)
    by_name = open_reranker(RerankConfig(model="cross-encoder/ms-marco-MiniLM-L6-v2"))
    assert isinstance(by_name, TorchCrossEncoder)
    assert by_name.name == "cross-encoder/ms-marco-MiniLM-L6-v2"
    with pytest.raises(ModelError, match="does not exist"):
        open_reranker(RerankConfig(model="x"), tmp_path / "nowhere")
