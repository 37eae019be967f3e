"""Where models are found: bundled, folder, hub; the hub is never asked in earnest."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from retrieval.config import EncoderConfig
from retrieval.errors import ModelError
from retrieval.models import bundled_models, find_model, open_encoder
from tests.hub_folders import STATIC_DIMENSIONS, STATIC_MODELS


def test_bundled_encoder_puts_like_with_like() -> None:
    encoder = open_encoder(EncoderConfig())
    assert encoder.dim == 256
    assert encoder.fingerprint.name == "starter-static"
    pipe, leak, star = encoder.encode_documents(
        ["The copper pipe is leaking.", "Water drips from a broken pipe.", "Telescopes observe distant galaxies."]
    )
    assert pipe @ leak > pipe @ star
    assert pipe @ leak > leak @ star


def test_bundled_encoder_truncates() -> None:
    encoder = open_encoder(EncoderConfig(dimensions=64))
    [vector] = encoder.encode_queries(["copper pipe"])
    assert vector.shape == (64,)
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="1 to 256 for starter-static, not 512"):
        open_encoder(EncoderConfig(dimensions=512))


def test_bundled_names_are_found_whatever_the_working_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "starter-static").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "starter-static" in bundled_models()
    for name in bundled_models():
        assert (find_model(name) / "config.json").is_file()
        assert find_model(name) != tmp_path / name


def test_folder(hub_models: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub_models[STATIC_MODELS[0]]
    assert find_model(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert find_model(folder.name).resolve() == folder.resolve()
    assert open_encoder(EncoderConfig(model=str(folder))).dim == STATIC_DIMENSIONS


@pytest.mark.parametrize("name", ["starter-statik", "", "no such model", "a/b/c", "../starter-static", "C:\\models"])
def test_typing_errors_list_the_bundled_names(name: str) -> None:
    with pytest.raises(ModelError, match=r"neither bundled.*starter-static.* nor a folder"):
        find_model(name)


def test_hub_name_is_downloaded_once(
    hub_models: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = STATIC_MODELS[0]
    asked: list[tuple[str, bool]] = []

    def snapshot_download(repository: str, *, local_files_only: bool = False, ignore_patterns: object = None) -> str:
        cached = (repository, False) in asked
        asked.append((repository, local_files_only))
        if local_files_only and not cached:
            raise LocalEntryNotFoundError("not in the cache")
        return str(hub_models[repository])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with caplog.at_level(logging.INFO, logger="retrieval.models"):
        assert open_encoder(EncoderConfig(model=name, dimensions=16)).dim == 16
    assert caplog.messages == [f"downloading {name} from the hub"]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="retrieval.models"):
        assert find_model(name) == hub_models[name]
    assert caplog.messages == []
    assert asked == [(name, True), (name, False), (name, True)]


def test_offline_says_what_was_tried() -> None:
    """The real client, with HF_HUB_OFFLINE as the shared fixtures set it, and an empty cache."""
    with pytest.raises(ModelError) as raised:
        find_model("owner/model")
    message = str(raised.value)
    for part in ("'owner/model'", "starter-static", "nor a folder", "HF_HUB_OFFLINE"):
        assert part in message


def test_real_cache_of_the_hub_is_used_offline_unless_the_download_was_cut_short(
    hub_models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, revision = STATIC_MODELS[0], "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    shutil.copytree(hub_models[name], snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        functools.partial(huggingface_hub.snapshot_download, cache_dir=tmp_path),
    )
    assert find_model(name) == snapshot
    assert open_encoder(EncoderConfig(model=name)).fingerprint.name == name
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc.incomplete").touch()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        find_model(name)


def test_not_found_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    failure: Exception = _not_found()

    def snapshot_download(repository: str, *, local_files_only: bool = False, ignore_patterns: object = None) -> str:
        raise LocalEntryNotFoundError("not in the cache") if local_files_only else failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match="the hub does not have it, or not for this user"):
        find_model("owner/model")
    failure = ConnectionError("no route")
    with pytest.raises(ModelError, match=r"'owner/model' is neither bundled .* the hub could not be asked: no route"):
        find_model("owner/model")


def _not_found() -> RepositoryNotFoundError:
    import httpx

    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/api/models/owner/model"))
    return RepositoryNotFoundError("404", response=response)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        open_encoder(EncoderConfig(model=str(tmp_path)))
