"""`retrieval evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.config import Config

_MEASURES = "nDCG@10 R@100 RR@10"


def evaluate(
    invocation: Invocation,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="A collection in the layout of BEIR.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which judgements: qrels/NAME.tsv.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N judged queries.")] = None,
    measures: Annotated[str, typer.Option(metavar="NAMES", help="Measures, separated by blanks.")] = _MEASURES,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Minimal pairs: negation, or a file (NevIR, ExcluIR, CondaQA, ours)."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --suite: exit code 1 where it gives less than this.")
    ] = None,
    save_baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --suite: keep the result to compare with.")
    ] = None,
) -> None:
    """Measure BM25, static vectors, both, and both with the cross-encoder on a judged collection.

    Without --index the collection is ingested into a temporary index. Judged queries without results count as zero.
    Quality comes from all queries, latency from up to 100 of them with as many hits as search.top_k.

    With --suite: do both stages tell apart twins that differ in a not, a without, a role, a quantity, an order in time?
    FOLDER and --index are then optional and give other documents among which the twins have to be found; --limit N
    takes N pairs of each kind.
    """
    if suite is not None:
        if split != "test" or measures != _MEASURES:
            raise typer.BadParameter("--split and --measures have no meaning with --suite; leave them out")
        _evaluate_suite(invocation, suite, folder, limit, baseline, save_baseline)
        return
    if baseline is not None or save_baseline is not None:
        raise typer.BadParameter("--baseline and --save-baseline need --suite NAME")
    if folder is None:
        raise typer.BadParameter("name the FOLDER of a collection, or --suite negation")
    from pipelines.evaluate import evaluate_collection
    from pipelines.render.evaluation import render_evaluation
    from pipelines.render.output import output_console, plain, step_progress, write_json

    config, index = _place(invocation)
    with step_progress(quiet=invocation.quiet) as on_progress:
        report = evaluate_collection(
            folder,
            config,
            index=index,
            split=split,
            limit=limit,
            measures=measures.replace(",", " ").split(),
            on_progress=on_progress,
        )
    if invocation.json:
        record = plain(report)
        for system in record["systems"]:
            # A hundred ids for each query are the business of evaluate_collection.
            del system["run"]
        write_json(record)
    else:
        render_evaluation(output_console(), report)


def _evaluate_suite(
    invocation: Invocation,
    name: str,
    distractors: Path | None,
    limit: int | None,
    baseline: Path | None,
    save_baseline: Path | None,
) -> None:
    from pipelines.presence import require_index
    from pipelines.render.output import output_console, plain, step_progress, write_json
    from pipelines.render.suite import render_suite
    from pipelines.suite.baseline import read_baseline, undercuts
    from pipelines.suite.baseline import save_baseline as save
    from pipelines.suite.run import run_suite
    from retrieval.evaluation.minimal_pairs import open_suite

    suite = open_suite(name)
    before = read_baseline(baseline) if baseline is not None else None
    if save_baseline is not None and not save_baseline.absolute().parent.is_dir():
        raise ValueError(f"cannot write the baseline {save_baseline}: make the folder {save_baseline.parent} first")
    config, index = _place(invocation)
    if index is not None:
        require_index(config, index)
    with step_progress(quiet=invocation.quiet) as on_progress:
        report = run_suite(
            suite if limit is None else suite.first(limit),
            config,
            index=index,
            distractors=distractors,
            on_progress=on_progress,
        )
    losses = undercuts(before, report) if before is not None else ()
    if save_baseline is not None:
        save(save_baseline, report)
    if invocation.json:
        write_json({**plain(report), "undercuts": plain(losses)})
    else:
        render_suite(output_console(), report)
    if losses:
        more = f", and {len(losses) - 1} more" if len(losses) > 1 else ""
        invocation.fail(f"worse than {baseline} by more than its tolerance: {losses[0]}{more}")
    if before is not None:
        invocation.notice(f"not worse than {baseline}")


def _place(invocation: Invocation) -> tuple[Config, Path | None]:
    """Settings and index; no index where none was named, even if there is one in ./index."""
    config = invocation.settings()
    named = invocation.index is not None or getattr(config.store, "path", None) is not None
    return invocation.resolve() if named else (config, None)
