"""The bundled weights, and where a model with a given name is found."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from retrieval.config import EncoderConfig
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError

_BUNDLED = Path(__file__).parent
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
# Weights in formats that are not opened here.
_IGNORED = ("*.bin", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.pt", "*.pth", "*.tflite", "openvino/*")
_logger = logging.getLogger(__name__)


def open_encoder(config: EncoderConfig) -> StaticEncoder:
    """Open the static encoder that a configuration names.

    Args:
        config: Model and dimensions.

    Raises:
        ModelError: The model is not found or its folder is malformed.
        ValueError: It has fewer dimensions than asked for.
    """
    return StaticEncoder.open(find_model(config.model), dimensions=config.dimensions)


def bundled_models() -> tuple[str, ...]:
    """Names of the models that come with the package, sorted."""
    return tuple(sorted(path.name for path in _BUNDLED.iterdir() if (path / "config.json").is_file()))


def find_model(name_or_path: str) -> Path:
    """Folder of a model: a bundled name, else an existing folder, else a hub name ``owner/model``.

    Only a hub name that is not in the local cache of the hub reaches for the network, and not when
    ``HF_HUB_OFFLINE`` is set.

    Args:
        name_or_path: Bundled name, path of a folder, or hub name.

    Raises:
        ModelError: None of the three has it; the message says what was tried.
    """
    if name_or_path in bundled_models():
        return _BUNDLED / name_or_path
    if name_or_path and Path(name_or_path).is_dir():
        return Path(name_or_path)
    tried = f"model {name_or_path!r} is neither bundled ({', '.join(bundled_models())}) nor a folder"
    if not _HUB_NAME.fullmatch(name_or_path):
        raise ModelError(f"{tried}, nor a hub name of the form owner/model")
    return _from_hub(name_or_path, tried)


def _from_hub(name: str, tried: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        cached = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
        if _is_complete(cached):
            return cached
    except OSError:
        _logger.debug("%s is not in the local cache of the hub", name)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise ModelError(f"{tried}, and not in the local cache of the hub; HF_HUB_OFFLINE forbids to download it")
    _logger.info("downloading %s from the hub", name)
    try:
        return Path(huggingface_hub.snapshot_download(name, ignore_patterns=list(_IGNORED)))
    except RepositoryNotFoundError as error:
        raise ModelError(f"{tried}, and the hub does not have it, or not for this user") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"{tried}, and the hub could not be asked: {error}") from error


def _is_complete(snapshot: Path) -> bool:
    """Whether the download of a snapshot in the cache of the hub came to its end."""
    # <cache>/models--owner--model/{blobs,snapshots/<revision>}
    interrupted = any((snapshot.parents[1] / "blobs").glob("*.incomplete"))
    return not interrupted and any(path.suffix in {".safetensors", ".onnx"} for path in snapshot.rglob("*"))
