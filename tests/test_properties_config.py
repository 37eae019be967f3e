"""Any mapping is a configuration or is refused with its keys named, and what was read comes back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target_files import bent, manifest, require_names
from pipelines.points import passage_from_payload, passage_id, passage_payload
from pipelines.service import ServiceConfig
from retrieval.config import Config, load_config, load_settings, parse_config
from retrieval.datatypes import Document, Passage
from retrieval.errors import ConfigError, StoreError
from retrieval.manifest import contents_digest, manifest_from_json, manifest_to_json
from retrieval.stores.json_files import ids_digest, read_json, write_json
from tests.properties import ANY_TEXT, JSON, TEXT, budget

WHOLE = Config().model_dump(mode="json")
NEARLY = (
    st.binary(max_size=200)
    .map(lambda data: bent(Choices(data), WHOLE, 30))
    .filter(lambda value: isinstance(value, dict))
)
ANYTHING = st.dictionaries(st.one_of(st.sampled_from(sorted(WHOLE)), ANY_TEXT), JSON, max_size=4)


@budget(80)
@given(given_=st.one_of(NEARLY, ANYTHING))
def test_a_mapping_is_a_configuration_or_its_keys_are_named(given_: dict[str, Any]) -> None:
    try:
        config = parse_config(given_)
    except ConfigError as error:
        require_names(str(error), given_)
        return
    out = config.model_dump(mode="json")
    assert parse_config(json.loads(json.dumps(out))) == config


@budget(15)
@given(given_=NEARLY)
def test_yaml_changes_nothing(given_: dict[str, Any], tmp_path: Path) -> None:
    try:
        config = parse_config(given_)
    except ConfigError:
        return
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == config


@budget(60)
@given(text=st.one_of(TEXT, st.text(st.sampled_from("a: -[]{}&*!|>'\"\n\t#%@0e."), max_size=40)))
def test_any_text_is_yaml_or_a_configuration_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (load_config, lambda file: load_settings(ServiceConfig, file, section="service")):
        try:
            read(path)
        except ConfigError as error:
            require_named_file(str(error), path)


def require_named_file(message: str, path: Path) -> None:
    assert str(path) in message
    assert len(message) < 20_000


@budget(80)
@given(data=st.binary(max_size=120))
def test_a_manifest_is_read_or_damaged_and_comes_back_the_same(data: bytes, tmp_path: Path) -> None:
    value = bent(Choices(data), manifest(), 30)
    if not isinstance(value, dict):
        return
    try:
        found = manifest_from_json(value, "here")
    except StoreError:
        return
    try:
        write_json(tmp_path / "manifest.json", manifest_to_json(found))
    except StoreError:
        return  # NaN or half a surrogate pair in a value, which no file of ours holds
    again = manifest_from_json(read_json(tmp_path / "manifest.json") or {}, "here")
    assert replace(again, updated="") == replace(manifest_from_json(json.loads(json.dumps(value)), "here"), updated="")
    assert contents_digest(again) == contents_digest(found)


@budget(100)
@given(text=TEXT, title=TEXT, headings=st.lists(TEXT, max_size=3), name=TEXT, index=st.integers(0, 2**31), source=TEXT)
def test_a_passage_comes_back_from_its_payload(
    text: str, title: str, headings: list[str], name: str, index: int, source: str
) -> None:
    document = Document(name, text, title, {"n": 1}, source)
    passage = Passage(name, index, text, 0, len(text), title, tuple(headings))
    payload = passage_payload(document, passage, digest="0", terms=3, run=1)
    assert passage_from_payload(json.loads(json.dumps(payload))) == passage
    assert payload["document"] == document.key


KEYS = st.tuples(st.text(st.sampled_from("ab\0#/"), max_size=4), st.sampled_from(["0", "00", "a0"]), st.integers(0, 12))


@budget(150)
@given(one=KEYS, other=KEYS)
def test_ids_differ_where_passages_do(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    assert (passage_id(*one) == passage_id(*other)) == (one == other)
    both = [passage_id(*one), passage_id(*other)]
    assert ids_digest(both) == ids_digest(both[::-1])
    assert (ids_digest(both) == "0" * 32) == (one == other)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_every_section_alone_is_a_configuration(name: str) -> None:
    assert parse_config({name: WHOLE[name]}) == Config()
