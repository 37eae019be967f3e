"""A pipeline by its address: opened when it is first used, so that it can be written down, copied and pickled."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from pipelines.opening import settings_of
from pipelines.presence import DEFAULT_INDEX, require_index
from pipelines.search_options import SearchArguments
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import EdgeStoreConfig, load_config
from retrieval.datatypes import Results

_Address = tuple[str, str | None, tuple[str, ...], bool]


@dataclass(slots=True)
class _Opened:
    """An open pipeline and how many `LazyPipeline` use it."""

    pipeline: TwoStagePipeline
    users: int = 0


_opened: dict[_Address, _Opened] = {}
# Reentrant: the garbage collector may release one pipeline while another one is opened in the same thread.
_opening = threading.RLock()


class LazyPipeline:
    """Searches an index that exists already, by its address; opens it at the first search.

    All of a process that have the same address share one open pipeline, which is closed with the last of them. A copy,
    a pickle or what `to_dict` writes holds the address alone. Safe to call from several threads.

    Args:
        index: Folder of the embedded index; ignored by configurations of a server.
        config: YAML file with the configuration; ``None`` for the one that the index was built with.
        overrides: ``section.key=value`` each, over the file; they need one.
        read_only: As for `TwoStagePipeline.open`: beside other processes that have the index open.

    Raises:
        ValueError: There are ``overrides`` and no ``config``.

    Example:
        >>> from pipelines import LazyPipeline
        >>> LazyPipeline("my-index").to_dict()["init_parameters"]["index"]
        'my-index'
    """

    def __init__(
        self,
        index: str | Path = DEFAULT_INDEX,
        *,
        config: str | Path | None = None,
        overrides: Sequence[str] = (),
        read_only: bool = False,
    ) -> None:
        if isinstance(overrides, str):
            raise TypeError(f"overrides is a list of strings, not the string {overrides!r}")
        if overrides and config is None:
            raise ValueError("overrides change a configuration file; name it with config=")
        self.index = str(index)
        self.config = None if config is None else str(config)
        self.overrides = tuple(overrides)
        self.read_only = read_only
        self._release: weakref.finalize[..., LazyPipeline] | None = None
        self._pipeline: TwoStagePipeline | None = None

    def open_once(self) -> TwoStagePipeline:
        """The pipeline, opened by the first call; it is closed by `close`, not by the caller.

        Raises:
            StoreError: There is no index there.
            RetrievalError: As for `TwoStagePipeline.open`.
        """
        with _opening:
            if self._pipeline is None:
                address = self._address()
                shared = _opened.get(address)
                if shared is None:
                    shared = _opened[address] = _Opened(self._open())
                shared.users += 1
                self._pipeline = shared.pipeline
                self._release = weakref.finalize(self, _leave, address)
            return self._pipeline

    def search(self, query: str, top_k: int | None = None, **arguments: Unpack[SearchArguments]) -> Results:
        """See `TwoStagePipeline.search`; opens the index first where that has not happened."""
        return self.open_once().search(query, top_k, **arguments)

    def search_many(
        self, queries: Sequence[str], top_k: int | None = None, **arguments: Unpack[SearchArguments]
    ) -> list[Results]:
        """See `TwoStagePipeline.search_many`."""
        return self.open_once().search_many(queries, top_k, **arguments)

    async def asearch(self, query: str, top_k: int | None = None, **arguments: Unpack[SearchArguments]) -> Results:
        """See `TwoStagePipeline.asearch`."""
        pipeline = await asyncio.to_thread(self.open_once)
        return await pipeline.asearch(query, top_k, **arguments)

    def close(self) -> None:
        """Release the index; the next search opens it again."""
        with _opening:
            release, self._release, self._pipeline = self._release, None, None
        if release is not None:
            release()

    def to_dict(self) -> dict[str, Any]:
        """The address as JSON values, in the form in which Haystack writes parts of a component."""
        parameters: dict[str, Any] = {"index": self.index, "config": self.config, "overrides": list(self.overrides)}
        if self.read_only:
            parameters["read_only"] = True
        return {"type": f"{type(self).__module__}.{type(self).__qualname__}", "init_parameters": parameters}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The pipeline that `to_dict` wrote.

        Raises:
            TypeError: There is a parameter of another name.
        """
        return cls(**data.get("init_parameters", {}))

    def _open(self) -> TwoStagePipeline:
        settings = settings_of(self.index) if self.config is None else load_config(self.config, self.overrides)
        store = settings.store
        require_index(settings, Path(store.path or self.index) if isinstance(store, EdgeStoreConfig) else None)
        # A reader that outlives a rebuild of the index asks each state for its settings.
        config = None if self.read_only and self.config is None else settings
        return TwoStagePipeline.open(self.index, config, read_only=self.read_only)

    def _address(self) -> _Address:
        config = None if self.config is None else str(Path(self.config).resolve())
        return str(Path(self.index).resolve()), config, self.overrides, self.read_only

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def __repr__(self) -> str:
        given = [repr(self.index)]
        given += [f"config={self.config!r}"] if self.config is not None else []
        given += [f"overrides={list(self.overrides)!r}"] if self.overrides else []
        given += ["read_only=True"] if self.read_only else []
        return f"{type(self).__name__}({', '.join(given)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _leave(address: _Address) -> None:
    with _opening:
        shared = _opened[address]
        shared.users -= 1
        if not shared.users:
            del _opened[address]
            shared.pipeline.close()
