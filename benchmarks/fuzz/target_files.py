"""Configuration and the JSON files of an index: any content is read, or refused with the class that is promised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target import Check, Target, require_short
from pipelines.service.config import ServiceConfig
from retrieval.config import Config, load_config, load_settings, parse_config
from retrieval.datatypes import EncoderFingerprint, IndexManifest, Quantization
from retrieval.errors import ConfigError, DocumentError, StoreCorruptError, StoreError, StoreInputError
from retrieval.evaluation.collections import read_qrels
from retrieval.evaluation.trec import read_run
from retrieval.manifest import manifest_from_json, manifest_to_json, new_manifest, peek_manifest
from retrieval.rerankers import IndexCalibration, PlattCalibration, RerankerCalibration, Threshold
from retrieval.stores import peek_quantization
from retrieval.stores.json_files import read_json, write_json

_FINGERPRINT = EncoderFingerprint("starter-static", "0123456789ab", "two-stage", "skip", 512, 256, True)


def manifest() -> dict[str, Any]:
    """A manifest as it is written."""
    return manifest_to_json(new_manifest(Config(), _FINGERPRINT, {"max_tokens": 512}))


def _calibration() -> dict[str, Any]:
    threshold = Threshold(**dict.fromkeys((each for each in Threshold.__dataclass_fields__), 0.5))
    return IndexCalibration("r@1", PlattCalibration(1.0, 0.0), threshold, "own", "pairs", "2024-05-01").to_json()


def bent(choices: Choices, value: Any, one_in: int = 12) -> Any:
    """The value with something in it replaced, left out or added."""
    if choices.left and choices.chance(one_in):
        return choices.json()
    if isinstance(value, Mapping):
        kept = {key: bent(choices, each, one_in) for key, each in value.items() if not choices.chance(40)}
        return {**kept, choices.text(2): choices.json()} if choices.chance(40) else kept
    return [bent(choices, each, one_in) for each in value] if isinstance(value, list) else value


def _config(folder: Path, stack: ExitStack) -> Check:
    """A mapping is a configuration, or the error names the key; what was read goes out and comes in the same."""
    whole = Config().model_dump(mode="json")
    kinds = ({"kind": "edge"}, {"kind": "memory"}, {"kind": "server", "url": "http://h:1", "collection": "c"})

    def check(data: bytes) -> None:
        choices = Choices(data)
        sections = {name: each for name, each in whole.items() if choices.chance(3)}
        if choices.chance():
            sections["store"] = dict(choices.pick(kinds))
        given = bent(choices, sections, 20)
        if not isinstance(given, dict):
            return
        try:
            config = parse_config(given)
        except ConfigError as error:
            require_names(str(error), given)
            return
        out = config.model_dump(mode="json")
        assert parse_config(out) == config, "it does not come back the same"
        if not len(data) % 16:  # pure Python, and slow
            assert parse_config(yaml.safe_load(yaml.safe_dump(out))) == config, "YAML changes it"

    return check


def require_names(message: str, given: Mapping[str, Any]) -> None:
    """Fail unless the message names a key at fault and stays in bounds."""
    assert len(message) < 20_000, f"a message of {len(message)} characters"
    assert any(str(key)[:200] in message for key in given) or "(top level)" in message, f"it names no key: {message}"


def _yaml(read: Callable[[Path], object], folder: Path, stack: ExitStack) -> Check:
    path = folder / "config.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except ConfigError as error:
            require_short(error, 20_000)

    return check


def _overrides(folder: Path, stack: ExitStack) -> Check:
    def check(data: bytes) -> None:
        choices = Choices(data)
        keys = ("rerank.depth", "store", "store.kind", "search", "rerank", "chunking.max_tokens", "x.y", "", ".")
        lines = choices.list_of(lambda: f"{choices.pick(keys)}={choices.rest(12).decode('utf-8', 'replace')}", 3)
        try:
            load_config(None, [line if choices.chance(3) else line[: choices.byte()] for line in lines])
        except ConfigError as error:
            require_short(error, 20_000)

    return check


def _json_bytes(choices: Choices, value: Any) -> bytes:
    """A value as JSON, whole, bent, or with bytes of its text changed."""
    kind = choices.byte() % 3
    text = json.dumps(bent(choices, value) if kind else value).encode("utf-8", "surrogatepass")
    if kind != 1:
        at = choices.whole(0, 65535) % (len(text) + 1)
        new = choices.rest()
        text = text[:at] + new + text[at + (len(new) if choices.byte() % 2 else 0) :]
    return text


def _manifests(folder: Path, stack: ExitStack) -> Check:
    """A manifest is one, or it is damaged; what was read can be written and is read the same."""
    whole, file = manifest(), folder / "manifest.json"

    def check(data: bytes) -> None:
        choices = Choices(data)
        file.write_bytes(_json_bytes(choices, whole))
        try:
            found = peek_manifest(folder)
        except StoreError as error:
            require_short(error, 20_000)
            return
        assert isinstance(found, IndexManifest)
        str(found.encoder)
        with suppress(StoreInputError):
            write_json(file, manifest_to_json(found))
            again = manifest_from_json(read_json(file) or {}, "here")
            assert again.encoder == found.encoder
            assert again.ids_digest == found.ids_digest

    return check


def _store_settings(folder: Path, stack: ExitStack) -> Check:
    place = folder / "generations" / "1"
    place.mkdir(parents=True)
    quantization = {name: getattr(Quantization(), name) for name in Quantization.__dataclass_fields__}
    whole = {"quantization": quantization, "has_deletes": False, "switching": False, "graph": True, "written": 3}

    def check(data: bytes) -> None:
        choices = Choices(data)
        (place / "store.json").write_bytes(_json_bytes(choices, whole))
        with suppress(StoreCorruptError):
            str(peek_quantization(folder, 1)[0])

    return check


def _calibrations(folder: Path, stack: ExitStack) -> Check:
    """What a file says about logits is a rising function into [0, 1], or refused."""
    mine = _calibration()
    theirs = {
        "passages": {"kind": "isotonic", "logits": [-1.0, 0.5, 2.0], "probabilities": [0.0, 0.5, 1.0]},
        "results": mine["passages"],
        "thresholds": [mine["threshold"]],
        "fitted_on": "pairs",
        "model_digest": "0",
        "forecast": {"intercept": 0.0, "needed": -1.0, "first": 1.0, "last": 0.5, "fitted_on": "pairs"},
    }

    def check(data: bytes) -> None:
        choices = Choices(data)
        own = choices.chance()
        content = bent(choices, mine if own else theirs)
        if not isinstance(content, dict):
            return
        try:
            read = IndexCalibration.from_json(content) if own else RerankerCalibration.from_json(content)
        except ValueError:
            return
        values = [float(read.passages.probability(logit)) for logit in (-1e9, -2.0, 0.0, 2.0, 1e9)]
        assert all(0 <= value <= 1 for value in values), f"probabilities {values}"
        assert values == sorted(values), f"probabilities {values}"
        json.dumps(read.to_json(), allow_nan=False)

    return check


def _judgements(read: Callable[[Path], object], name: str, folder: Path, stack: ExitStack) -> Check:
    path = folder / name

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(DocumentError, ValueError):
            read(path)

    return check


_YAML_SEEDS: Sequence[bytes] = (
    b"rerank:\n  depth: 5\nstore: {kind: server, url: 'http://h', collection: c}\n",
    b"a: &a [1, 2]\nb: *a\n", b"x: 2024-13-45\n", b"x: !!int abc\n", b"? [a]\n: b\n", b"[" * 90, b"{a: " * 60,
    b"- 1\n- 2\n", b"%YAML 9\n",
    b"x: !!python/object/apply:os.system [ls]\n", b"x: !!timestamp a\n", b"x: !!binary =\n", b"x: 1:99:00\n",
    b"\xff\xfea\0", b"x: 0b_\n", b"x: +.inf\n",
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n"
    b"c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n"
    b"e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nrerank: *g\n",
    b"a: &a\n  <<: *a\n", b"a: &a [*a]\nstore: *a\n",
)  # fmt: skip
_SERVICE: Callable[[Path], object] = partial(load_settings, ServiceConfig, section="service")

TARGETS = [
    Target("configuration",
    "valid, or an error with the key; the same after a round trip", _config, longest=200, weight=1.5),
    Target("configuration, YAML", "ConfigError or a configuration", partial(_yaml, load_config), lambda: _YAML_SEEDS),
    Target("service configuration, YAML",
    "the same", partial(_yaml, _SERVICE), lambda: [b"service:\n  rate: 1\n", *_YAML_SEEDS], weight=0.5),
    Target("overrides", "the same", _overrides, longest=60, weight=0.5),
    Target("manifest.json", "StoreError or a manifest that can be written again", _manifests, longest=200),
    Target("store.json", "StoreCorruptError or settings", _store_settings, longest=120, weight=0.7),
    Target("calibrations", "ValueError, or a rising function into [0, 1]", _calibrations, longest=160, weight=0.7),
    Target("qrels", "DocumentError or ValueError, or judgements", partial(_judgements, read_qrels, "qrels.tsv"),
           lambda: [b"query-id\tcorpus-id\tscore\nq\td\t1\n", b"q 0 d 1\n"], weight=0.5),
    Target("TREC run", "the same", partial(_judgements, read_run,
    "run.txt"), lambda: [b"q Q0 d 1 0.5 tag\n"], weight=0.5),
]  # fmt: skip
