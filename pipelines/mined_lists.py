"""A file of ranking lists that grows batch by batch and can be gone on with after a kill."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from retrieval.errors import ConfigError, DocumentError, StoreBusyError, StoreError
from retrieval.stores.json_files import sync_folder, write_json
from retrieval.stores.lock import IndexLock
from retrieval.training.mine import MineCounts
from retrieval.training.reranker.lists import RankingList

_LISTS = "lists.jsonl.gz"
_STATE = "state.json"


class MinedLists:
    """Lists on their way into a file, one process at a time.

    They grow in the folder ``NAME.mining`` beside it and move to their place when all are there, so the file itself is
    complete whenever it exists. Every batch is a gzip member of its own, recorded in ``state.json`` once it is on the
    disk; what a killed run wrote beyond the record is cut off.

    Args:
        out: The file; ``.jsonl.gz``.
        overwrite: Whether to replace the file, and to forget an unfinished run that had other settings. One that had
            the same is gone on with, so that a command with this option can be repeated too.

    Raises:
        ValueError: The name does not end in ``.jsonl.gz``.
        ConfigError: The file exists already.
        StoreError: The folder cannot be made, or another process works on it.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        if not out.name.endswith(".jsonl.gz"):
            raise ValueError(f"the lists go into a gzip file of JSON lines, NAME.jsonl.gz, not {out.name!r}")
        if out.is_dir():
            raise ConfigError(f"{out} is a folder; name the file that the lists go into")
        self.out = out
        self.folder = out.with_name(f"{out.name}.mining")
        self.queries = 0
        self.counts = MineCounts()
        self._made_with: Mapping[str, Any] = {}
        self._bytes = 0
        self._file: IO[bytes] | None = None
        if out.exists() and not overwrite:
            self._clear_remains()
            raise ConfigError(f"{out} exists already; give another name, or replace it with --overwrite")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = IndexLock(self.folder)
        except StoreBusyError as error:
            raise StoreBusyError(f"another process is mining into {out}; wait for it or give another name") from error
        except OSError as error:
            raise StoreError(f"cannot make {self.folder}: {error.strerror or error}") from error
        self._overwrite = overwrite

    def begin(self, made_with: Mapping[str, Any]) -> None:
        """Go on where a run with the same pairs, models and settings stopped, or start.

        Args:
            made_with: What decides what the lists hold, as far as it is known before there is an index; JSON values.

        Raises:
            ConfigError: The unfinished run was made with something else.
            DocumentError: Its files are damaged.
            StoreError: The file cannot be written.
        """
        facts = _plain(made_with)
        try:
            if self.out.exists():
                self._forget()
                self.out.unlink()
            state = self._usable_state(facts)
            self._made_with = facts if state is None else state["made_with"]
            if state is not None:
                self.queries, self._bytes = state["queries"], state["bytes"]
                self.counts = MineCounts(**state["counts"])
            lists = self.folder / _LISTS
            self._file = lists.open("r+b" if lists.exists() else "w+b")
            self._file.truncate(self._bytes)
            self._file.seek(self._bytes)
        except OSError as error:
            raise self._unwritten(error) from error
        self._save()

    def confirm(self, found_in: Mapping[str, Any]) -> None:
        """Add what is known once the index is open.

        Raises:
            ConfigError: The unfinished run had another one.
            StoreError: The record cannot be written.
        """
        facts = _plain(found_in)
        try:
            self._compare({**facts, **self._made_with}, facts)
        except ConfigError:
            if not self._overwrite or self._file is None:
                raise
            self.queries, self._bytes, self.counts = 0, 0, MineCounts()
            self._file.seek(0)
            self._file.truncate()
        self._made_with = {**self._made_with, **facts}
        self._save()

    def append(self, lists: Sequence[RankingList], counts: MineCounts) -> None:
        """Add the lists of the next queries; once it returns, a kill or a power loss does not lose them.

        Raises:
            StoreError: They cannot be written; the run can be gone on with later.
        """
        if self._file is None:
            raise ValueError("append comes after begin")
        rows = ({name: value for name, value in asdict(item).items() if name != "scores" or value} for item in lists)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        data = gzip.compress(lines.encode("ascii"), 6, mtime=0) if lists else b""
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritten(error) from error
        self._bytes += len(data)
        self.queries += counts.queries
        self.counts += counts
        self._save()

    def finish(self) -> None:
        """Put the file into its place and remove what was needed on the way.

        Raises:
            StoreError: It cannot be moved.
        """
        self._close_file()
        try:
            os.replace(self.folder / _LISTS, self.out)
            sync_folder(self.out.absolute().parent)
        except OSError as error:
            raise self._unwritten(error) from error
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the files; what was appended stays. Closing twice is fine."""
        self._close_file()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _clear_remains(self) -> None:
        """Remove the folder of a run that was killed right after it had put the file into its place."""
        if (self.folder / _STATE).is_file() and not (self.folder / _LISTS).exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _forget(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _usable_state(self, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of an unfinished run that can be gone on with, ``None`` without one."""
        try:
            state = self._read_state()
            if state is not None:
                self._compare(state["made_with"], facts)
                lists = self.folder / _LISTS
                size = lists.stat().st_size if lists.exists() else 0
                if size < state["bytes"]:
                    raise DocumentError(f"{lists} has {size} bytes of {state['bytes']}; start again with --overwrite")
        except (ConfigError, DocumentError):
            if not self._overwrite:
                raise
            self._forget()
            return None
        return state

    def _read_state(self) -> dict[str, Any] | None:
        path = self.folder / _STATE
        try:
            state = json.loads(path.read_bytes())
            for key, kind in (("made_with", dict), ("queries", int), ("bytes", int), ("counts", dict)):
                if not isinstance(state[key], kind):
                    raise ValueError(f"{key!r} is not a {kind.__name__}")
            MineCounts(**state["counts"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DocumentError(f"{path} is damaged ({error}); start again with --overwrite") from error
        return dict(state)

    def _save(self) -> None:
        state = {"made_with": self._made_with, "queries": self.queries, "bytes": self._bytes}
        write_json(self.folder / _STATE, {**state, "counts": asdict(self.counts)})

    def _compare(self, before: Mapping[str, Any], today: Mapping[str, Any]) -> None:
        for key, now in today.items():
            if before.get(key) != now:
                raise ConfigError(
                    f"{self.folder} holds an unfinished run with another {key} ({before.get(key)}, now {now}); "
                    "go on with that one, give another name, or start again with --overwrite"
                )

    def _unwritten(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write into {self.folder}: {error.strerror or error}; nothing that was recorded is lost, "
            "run the same command again to go on"
        )


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(facts)))
