"""`retrieval mine`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.config import Config


def mine(
    invocation: Invocation,
    pairs: Annotated[
        list[Path], typer.Argument(metavar="PAIRS", help="Files or folders of pairs: JSON lines, CSV, Parquet.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the lists go: NAME.jsonl.gz.")] = Path(
        "lists.jsonl.gz"
    ),
    corpus: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Documents to take negatives from, instead of an index.")
    ] = None,
    negatives: Annotated[int, typer.Option(min=1, metavar="N", help="Negatives of a list, at most.")] = 7,
    depth: Annotated[int, typer.Option(min=1, metavar="N", help="Candidates of each arm.")] = 50,
    margin: Annotated[
        float,
        typer.Option(metavar="X", help="What scores above this share of the positive's probability is dropped."),
    ] = 0.95,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="--margin is a distance below the positive's logit.")
    ] = False,
    rerank: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="Let the cross-encoder drop false negatives.")
    ] = True,
    window: Annotated[int, typer.Option(min=1, metavar="WORDS", help="Words kept of a long passage.")] = 90,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Chooses among the candidates.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace FILE, or an unfinished run that was different.")
    ] = False,
) -> None:
    """Find hard negatives for pairs of query and passage, to train a cross-encoder on.

    A pair is a JSON object with "query" and "positive", and perhaps "negatives" (list), "answer" and "documents" (ids
    of documents that answer it, all of them left out). Candidates come from --index, from --corpus, or from the
    passages of the pairs. A run that was stopped goes on when it is started again.
    """
    from pipelines.mine import mine_lists
    from pipelines.pair_files import PairFiles
    from pipelines.render.mine import mine_progress, render_mining
    from pipelines.render.output import output_console, write_json
    from retrieval.training.mine import MineSettings

    settings = MineSettings(
        negatives=negatives,
        depth=depth,
        margin=margin,
        margin_kind="absolute" if absolute else "relative",
        window_words=window,
        seed=seed,
    )
    config, index = _place(invocation)
    with mine_progress(quiet=invocation.quiet) as on_progress:
        report = mine_lists(
            PairFiles(pairs),
            out,
            config,
            index=index,
            corpus=corpus,
            settings=settings,
            rerank=rerank,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    if invocation.json:
        write_json(report)
    else:
        render_mining(output_console(), report)


def _place(invocation: Invocation) -> tuple[Config, Path | None]:
    """Settings and index; no index where none was named, even if there is one in ./index."""
    from pipelines.presence import require_index
    from retrieval.config import EdgeStoreConfig

    config = invocation.settings()
    named = invocation.index is not None or not isinstance(config.store, EdgeStoreConfig) or config.store.path
    if not named:
        return config, None
    config, folder = invocation.resolve()
    require_index(config, folder)
    return config, folder or Path()
