"""What every command shares: where the index is and which settings hold.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipelines.commands import completion

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.config import Config


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options that every command takes; `registration.command` adds them to its signature.

    Args:
        index: Folder of an embedded index; ``None`` takes the one of the configuration, else ``./index``.
        config: YAML file.
        overrides: ``section.key=value`` each.
        json: One JSON document on stdout instead of text.
        debug: Show the traceback of an error.
        quiet: No progress, notices or summaries.
    """

    index: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the index.", show_default="./index", autocompletion=completion.index_folders
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Configuration file (YAML).", autocompletion=completion.configuration_files),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting: rerank.depth=50.",
            autocompletion=completion.settings,
        ),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, notices or summaries.")] = False

    def settings(self) -> Config:
        """The configuration file with the overrides, without regard to what an index was built with.

        Raises:
            ConfigError: The file or an override cannot be used.
        """
        from retrieval.config import load_config

        return load_config(self.config, self.overrides or ())

    def resolve(self, *, for_rebuild: bool = False) -> tuple[Config, Path | None]:
        """The configuration to open the index with, and its folder.

        Without a configuration file an existing index is opened with the encoder, BM25 and chunking settings that it
        was built with; overrides come on top.

        Args:
            for_rebuild: A manifest that cannot be read counts as none.

        Returns:
            The configuration, and the folder of the embedded index, ``None`` for a server or memory.

        Raises:
            ConfigError: The settings cannot be used or name two different folders.
            StoreCorruptError: The manifest of the index cannot be read.
        """
        from pipelines.presence import DEFAULT_INDEX
        from retrieval.config import EdgeStoreConfig, parse_config
        from retrieval.errors import ConfigError, StoreError
        from retrieval.manifest import peek_manifest

        config = self.settings()
        store = config.store
        if not isinstance(store, EdgeStoreConfig):
            if self.index is not None:
                raise ConfigError(f"--index {self.index} has no meaning for store.kind {store.kind!r}; leave it out")
            return config, None
        if self.index is not None and store.path is not None and Path(store.path) != self.index:
            raise ConfigError(
                f"--index {self.index} and store.path {store.path} are different folders; leave one of them out"
            )
        folder = Path(store.path) if store.path is not None else self.index or DEFAULT_INDEX
        if self.config is None:
            try:
                manifest = peek_manifest(folder)
            except StoreError:
                if not for_rebuild:
                    raise
                manifest = None
            if manifest is not None:
                given = config.model_dump(mode="json", exclude_unset=True)
                config = parse_config(_merged(manifest.config, given), origin=f"the manifest of {folder}")
        return config, folder

    def open_existing(self, *, eager: bool = False, read_only: bool | None = False) -> TwoStagePipeline:
        """Open an index that must be there.

        Args:
            eager: Load the cross-encoder beside all else, for whoever is about to search once.
            read_only: As for `TwoStagePipeline.open`; ``None`` where another process has the index open, and says so.

        Raises:
            StoreError: There is no index, or it cannot be opened; nothing is created.
            RetrievalError: The settings cannot be used.
        """
        from pipelines.presence import require_index

        config, folder = self.resolve()
        require_index(config, folder)
        second_stage = None
        if eager:
            from pipelines.second_stage import begin_second_stage

            second_stage = begin_second_stage(config)
        from pipelines.two_stage import TwoStagePipeline

        path = folder or Path()
        if read_only is not None:
            return TwoStagePipeline.open(path, config, second_stage=second_stage, read_only=read_only)
        from pipelines.read_beside import open_beside

        return open_beside(path, config, second_stage, self.notice)

    def again(self, command: str) -> str:
        """Another command over the same index, to be shown to people."""
        options = []
        if self.index is not None:
            options.append(f"--index {shlex.quote(str(self.index))}")
        if self.config is not None:
            options.append(f"--config {shlex.quote(str(self.config))}")
        options += [f"--set {shlex.quote(override)}" for override in self.overrides or ()]
        return " ".join(["retrieval", command, *options])

    def notice(self, text: str, *, style: str = "") -> None:
        """Say something on stderr that is not the result, unless quiet."""
        if not self.quiet:
            from pipelines.render.output import error_console

            error_console().print(text, style=style)

    def fail(self, message: str) -> NoReturn:
        """End with exit code 1 and a sentence on stderr, after the result has been written."""
        from pipelines.render.output import error_console

        error_console().print(f"error: {message}", style="red")
        raise typer.Exit(1)


def _merged(base: Any, update: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(update, dict):
        return update
    return {
        key: _merged(base[key], update[key]) if key in base and key in update else (update | base)[key]
        for key in base | update
    }
