"""Configuration: defaults, files, overrides, refusals that say what to do, and the files of configs/."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from pipelines.train_config import TrainConfig
from retrieval.config import (
    Config,
    EdgeStoreConfig,
    MemoryStoreConfig,
    QuantizationConfig,
    ServerStoreConfig,
    load_config,
    load_settings,
    parse_config,
)
from retrieval.datatypes import Quantization
from retrieval.errors import ConfigError
from retrieval.models import open_encoder
from retrieval.rerankers import open_reranker
from tests.hub_folders import CROSS_ENCODERS, STATIC_DIMENSIONS, STATIC_MODELS

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "retrieval.yaml"


def test_defaults() -> None:
    config = load_config()
    assert config == Config()
    assert config.encoder.model == "starter-static"
    assert config.store == EdgeStoreConfig(path=None)
    assert (config.first_stage.candidates, config.search.top_k, config.quantization.kind) == (100, 5, "auto")


def test_a_file_changes_what_it_names_and_nothing_else(config_file: Path) -> None:
    config_file.write_text("rerank:\n  depth: 5\nsearch: {top_k: 3, group_by: passage}\n", encoding="utf-8")
    config = load_config(config_file)
    assert (config.rerank.depth, config.search.top_k, config.search.group_by) == (5, 3, "passage")
    assert config.rerank.model_copy(update={"depth": Config().rerank.depth}) == Config().rerank
    assert config.encoder == Config().encoder


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}\n", "null\n"])
def test_an_empty_file_means_the_defaults(config_file: Path, text: str) -> None:
    config_file.write_text(text, encoding="utf-8")
    assert load_config(str(config_file)) == Config()


def test_overrides_win_over_the_file_and_later_ones_over_earlier(config_file: Path) -> None:
    config_file.write_text("rerank: {depth: 5, batch_size: 4, max_tokens: 99}\n", encoding="utf-8")
    config = load_config(config_file, ["rerank.depth=7", "rerank.depth=9", "rerank.max_tokens=null", "bm25.b=0.5"])
    assert (config.rerank.depth, config.rerank.batch_size) == (9, 4)
    assert (config.rerank.max_tokens, config.bm25.b) == (None, 0.5)


def test_an_override_value_may_hold_an_equals_sign_and_a_list() -> None:
    config = load_config(None, ["encoder.model=a=b", 'documents.ignore=["*.tmp", "drafts"]'])
    assert config.encoder.model == "a=b"
    assert config.documents.ignore == ("*.tmp", "drafts")


@pytest.mark.parametrize("override", ["rerank.depth", "=5", "rerank.=5", ".depth=5", ""])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not of the form section\.key=value"):
        load_config(None, [override])


def test_an_override_cannot_go_below_a_value() -> None:
    with pytest.raises(ConfigError, match=r"rerank\.depth is a value, not a section"):
        load_config(None, ["rerank.depth=5", "rerank.depth.more=1"])


def test_an_override_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match="the value is not valid YAML"):
        load_config(None, ["documents.ignore=[a"])


def test_an_unknown_key_is_named_with_file_path_and_allowed_keys(config_file: Path) -> None:
    config_file.write_text("rerank:\n  dept: 5\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(config_file)
    assert str(caught.value) == (
        f"{config_file}: unknown key rerank.dept; allowed here: batch_size, budget_ms, cache_mb, depth, "
        "early_stop, enabled, first_stage_weight, max_tokens, model, threads, window_words"
    )


def test_an_unknown_section_and_an_unknown_key_of_a_store_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"rerankers": {}, "store": {"kind": "edge", "url": "x"}}, origin="here")
    lines = str(caught.value).splitlines()
    assert sorted(lines) == [
        "here: unknown key rerankers; allowed here: bm25, chunking, documents, encoder, first_stage, hnsw, "
        "quantization, rerank, search, store",
        "here: unknown key store.url; allowed here: kind, min_free_mb, path, publish",
    ]


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("bm25.b=.nan", "bm25.b"),
        ("bm25.k1=.inf", "bm25.k1"),
        ("bm25.k1=0", "bm25.k1"),
        ("rerank.depth=-1", "rerank.depth"),
        ("rerank.depth=many", "rerank.depth"),
        ("rerank.depth=2.5", "rerank.depth"),
        ("rerank.budget_ms=0", "rerank.budget_ms"),
        ("rerank.budget_ms=.nan", "rerank.budget_ms"),
        ("rerank=5", "rerank"),
        ("encoder.model=[a]", "encoder.model"),
        ("encoder.dimensions=0", "encoder.dimensions"),
        ("first_stage.arms=sparse", "first_stage.arms"),
        ("first_stage.dense_weight=1.5", "first_stage.dense_weight"),
        ("quantization.bits=3", "quantization"),
        ("chunking.overlap_tokens=300", "chunking"),
        ("search.top_k=0", "search.top_k"),
        ("store.kind=cloud", "store"),
        ("store=5", "store"),
    ],
)
def test_an_unusable_value_is_refused_with_its_path(override: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert str(caught.value).startswith(f"configuration: {path}: ")
    assert "(got " in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"search": {"top_k": 0}, "rerank": {"depth": "x", "dept": 1}})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds a list, not a mapping of sections"),
        (b"just text\n", "holds a str, not a mapping of sections"),
        (b"rerank: [\n", "is not valid YAML"),
        (b"\xff\xfe\x00binary", "is not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        (b"1: {}\n", "1: Keys should be strings"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(config_file: Path, content: bytes, message: str) -> None:
    config_file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(config_file)
    assert str(config_file) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read configuration .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read configuration"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("store", "kind"),
    [
        ({"kind": "edge", "path": "x"}, EdgeStoreConfig),
        ({"kind": "memory"}, MemoryStoreConfig),
        ({"kind": "server", "collection": "c"}, ServerStoreConfig),
    ],
)
def test_the_kind_decides_which_store_keys_exist(store: dict[str, str], kind: type) -> None:
    assert type(parse_config({"store": store}).store) is kind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "binary", "bits": 4}, "binary quantization has 1, 1.5 or 2 bits, not 4"),
        ({"kind": "turbo", "query_bits": 8}, "query_bits is a setting of binary quantization, not of turbo"),
        ({"kind": "binary", "query_bits": 5}, "Input should be 4 or 8"),
    ],
)
def test_quantizations_that_do_not_exist_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"quantization": settings})


def test_quantization_as_a_record() -> None:
    settings = QuantizationConfig(kind="binary", bits=1, query_bits=8, rescore=False, oversampling=2)
    assert settings.record() == Quantization("binary", 1, 8, False, 2.0)
    assert QuantizationConfig().record() == Quantization()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().rerank.depth = 3


def test_the_default_file_holds_every_key_with_its_default() -> None:

    written = yaml.safe_load((CONFIGS / "default.yaml").read_text(encoding="utf-8"))
    assert load_config(CONFIGS / "default.yaml") == Config()
    assert written == Config().model_dump(mode="json")


@pytest.mark.parametrize(
    ("name", "section", "key", "value"),
    [
        ("default", "rerank", "model", "starter-reranker"),
        ("dense-only", "first_stage", "arms", "dense"),
        ("multilingual", "bm25", "language", "multilingual"),
        ("quality", "encoder", "model", "sentence-transformers/static-retrieval-mrl-en-v1"),
        ("quantized", "quantization", "kind", "turbo"),
        ("server", "store", "kind", "server"),
        ("cluster", "quantization", "kind", "turbo"),
    ],
)
def test_the_files_of_configs_load(name: str, section: str, key: str, value: str) -> None:
    assert getattr(getattr(load_config(CONFIGS / f"{name}.yaml"), section), key) == value


def test_the_server_file_holds_every_key_with_its_default() -> None:
    written = yaml.safe_load((CONFIGS / "server.yaml").read_text(encoding="utf-8"))["store"]
    assert written == {**ServerStoreConfig().model_dump(mode="json"), "api_key_env": "QDRANT_API_KEY"}


def test_the_cluster_file_can_lose_a_node() -> None:
    store = load_config(CONFIGS / "cluster.yaml").store
    assert isinstance(store, ServerStoreConfig)
    assert (store.shard_number, store.replication_factor, store.write_consistency_factor) == (6, 2, 2)
    assert (store.on_disk.vectors, store.on_disk.graph, store.prefer_grpc) == (True, False, True)


def test_every_file_of_configs_loads_and_every_key_has_a_comment() -> None:
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) >= 6
    for path in files:
        load_settings(TrainConfig, path) if path.name.startswith("train-") else load_config(path)
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), f"{path.name} does not begin with what it is for"
        bare = [line for line in lines if line.startswith("  ") and ":" in line and " # " not in line]
        assert not bare, f"{path.name} has keys without a comment: {bare}"


@pytest.mark.parametrize(("name", "model"), list(zip(("quality", "multilingual"), STATIC_MODELS, strict=True)))
def test_the_static_models_of_configs_open(name: str, model: str, hub_models: Mapping[str, Path]) -> None:
    settings = load_config(CONFIGS / f"{name}.yaml").encoder
    assert settings.model == model
    encoder = open_encoder(settings.model_copy(update={"model": str(hub_models[model])}))
    vectors = encoder.encode_documents(["copper pipe", "Stern", ""])
    assert vectors.shape == (3, STATIC_DIMENSIONS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("graph", [True, False], ids=["onnx", "torch"])
@pytest.mark.parametrize(("name", "model"), list(zip(("quality", "multilingual"), CROSS_ENCODERS, strict=True)))
def test_the_cross_encoders_of_configs_open(
    name: str, model: str, graph: bool, hub_models: Mapping[str, Path], tmp_path: Path
) -> None:
    settings = load_config(CONFIGS / f"{name}.yaml").rerank
    assert settings.model == model
    folder = shutil.copytree(hub_models[model], tmp_path / "model", ignore=None if graph else _without_graph)
    scores = open_reranker(settings, folder).score("copper pipe", ["the pipe leak of copper repair", "bread"])
    # The first score is what transformers computes for these weights.
    expected = {"quality": [1.5213423], "multilingual": [-0.2310200]}[name]
    assert scores[:1] == pytest.approx(expected, abs=1e-4)
    assert scores.shape == (2,)


def _without_graph(folder: str, names: list[str]) -> set[str]:
    return {"onnx"} & set(names)
