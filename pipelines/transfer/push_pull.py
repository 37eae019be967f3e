"""Copy an index as it is: `push_index` from a folder to a server, `pull_index` from a server to a folder.

The copy grows as the next generation of the target, which nobody sees, and takes the place of the live one in one step,
after it was compared with its source. A copy that was interrupted is continued by the next call.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.opening import settings_of
from pipelines.presence import require_index
from pipelines.progress import StepCallback
from pipelines.transfer.run import Place, Transfer, TransferReport
from retrieval.config import Config, EdgeStoreConfig, ServerStoreConfig
from retrieval.errors import ConfigError

__all__ = ["TransferReport", "pull_index", "push_index"]


def push_index(
    folder: str | Path,
    config: Config,
    *,
    replace_other: bool = False,
    keep_previous: bool = True,
    on_progress: StepCallback | None = None,
) -> TransferReport:
    """Copy an embedded index to a server: vectors, BM25 weights, payloads, adapted encoder and manifest.

    Args:
        folder: Folder of the index.
        config: Its ``store`` names the server and the collection. Vectors are compressed as in the folder, unless it
            has a section ``quantization``.
        replace_other: Replace an index that is not a copy of this one, or a copy that was changed since.
        keep_previous: Keep the generation that is replaced, for those who have it open, until the next switch.
        on_progress: Called with what is under way, how much is done, and of how many.

    Raises:
        ConfigError: The store of ``config`` is not a server, or names no place for an adapted encoder.
        StoreError: There is no index, it is being changed, the target holds another one, or a store failed; the target
            serves what it served before.
        StoreCorruptError: The copy differs from its source; nothing was switched.
        ModelError: The adapted encoder of the index is missing.
    """
    _require_server(config)
    require_index(Config(), Path(folder))
    source = Place(settings_of(folder), Path(folder))
    transfer = Transfer(source, Place(config, None), on_progress, keep_previous=keep_previous)
    return transfer.run(replace_other=replace_other)


def pull_index(
    config: Config,
    folder: str | Path,
    *,
    replace_other: bool = False,
    keep_previous: bool = False,
    on_progress: StepCallback | None = None,
) -> TransferReport:
    """Copy an index from a server into a folder; the opposite of `push_index`.

    Args:
        config: Its ``store`` names the server and the collection.
        folder: Folder of the embedded index, made when absent.
        replace_other: As in `push_index`.
        keep_previous: Keep the generation that is replaced until the next switch.
        on_progress: As in `push_index`.

    Raises:
        ConfigError: The store of ``config`` is not a server.
        StoreError: As in `push_index`.
        StoreBusyError: The folder is open elsewhere.
        StoreFullError: Too little disk is left.
        StoreCorruptError: The copy differs from its source; nothing was switched.
        ModelError: The adapted encoder of the index is not on this machine.
    """
    _require_server(config)
    require_index(config, None)
    target = Place(config.model_copy(update={"store": EdgeStoreConfig()}), Path(folder))
    transfer = Transfer(Place(config, None), target, on_progress, keep_previous=keep_previous)
    return transfer.run(replace_other=replace_other)


def _require_server(config: Config) -> None:
    if not isinstance(config.store, ServerStoreConfig):
        raise ConfigError(
            f"store.kind is {config.store.kind!r}; name the server with --config FILE (see configs/server.yaml)"
        )
