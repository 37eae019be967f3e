"""`retrieval evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.evaluation_inputs import command_line, read_runs, read_systems, require_place, split_measures
from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.evaluation import CollectionReport, EvaluateOptions, Evaluation
    from retrieval.config import Config

_MEASURES = "nDCG@10 R@100 RR@10"


def evaluate(
    invocation: Invocation,
    context: typer.Context,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Collections in the layout of BEIR.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Which judgements: qrels/NAME.tsv.")] = "test",
    qrels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Other judgements, of BEIR or TREC, instead of a split.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N judged queries.")] = None,
    measures: Annotated[
        str, typer.Option(metavar="NAMES", help="Names of ir-measures, separated by blanks: 'nDCG@10 P(rel=2)@5'.")
    ] = _MEASURES,
    system: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Another row: what this configuration gives. Repeatable."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FILE", help="Another row: a TREC run from elsewhere. Repeatable."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="SYSTEM", help="Compare with this row (BM25). With --suite: a FILE; exit 1 below it."),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(metavar="PRICE", help="Of this machine: gives the cost of a million queries.")
    ] = None,
    save_runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write TREC runs and judgements to DIR/COLLECTION/.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables as Markdown.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with plots: one file, nothing to load.")
    ] = None,
    losses: Annotated[
        bool, typer.Option("--losses/--no-losses", help="Tell which stage lost relevant documents, with advice.")
    ] = True,
    save_losses: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every missed relevant document: JSON lines.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Minimal pairs: negation, or a file (NevIR, ExcluIR, CondaQA, ours)."),
    ] = None,
    save_baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --suite: keep the result to compare with.")
    ] = None,
) -> None:
    """Measure systems side by side on judged collections, and tell which differences are more than chance.

    Rows: BM25, static vectors, both, both with the cross-encoder, and what --system and --run add. Without --index a
    collection is ingested into a temporary index. Judged queries without results count as zero. Quality comes from all
    queries, latency from up to 100 of them, one after another, with as many hits as search.top_k. For every relevant
    document that is not in the top 10 of both stages, the one that lost it is named. Without FOLDER, --qrels and --run
    compare finished runs.

    With --suite: do both stages tell apart twins that differ in a not, a without, a role, a quantity, an order in time?
    FOLDER and --index are then optional and give other documents among which the twins have to be found; --limit N
    takes N pairs of each kind.
    """
    folders = folders or []
    if suite is not None:
        changed = (split != "test", measures != _MEASURES, not losses)
        others = (qrels, system, run, price_per_hour, save_runs, markdown, html, save_losses)
        _refuse_with_suite(folders, given=any((*changed, *others)))
        before = Path(baseline) if baseline is not None else None
        _evaluate_suite(invocation, suite, folders[0] if folders else None, limit, before, save_baseline)
        return
    if save_baseline is not None or (baseline is not None and not folders and not run):
        raise typer.BadParameter(
            "--save-baseline and --baseline FILE need --suite NAME; --baseline SYSTEM needs the FOLDER of a collection"
        )
    _require_folders(invocation, folders, qrels=qrels is not None, runs=bool(run))
    if save_losses is not None and (not losses or not folders):
        raise typer.BadParameter("--save-losses needs the FOLDER of a collection, and not --no-losses")
    from pipelines.evaluation import EvaluateOptions

    require_place(markdown, "--markdown")
    require_place(html, "--html")
    require_place(save_losses, "--save-losses")
    if html is not None:
        from pipelines.render.report_svg import require_plotting

        require_plotting()
    options = EvaluateOptions(
        split=split,
        qrels=qrels,
        limit=limit,
        measures=split_measures(measures),
        systems=read_systems(system or ()),
        runs=read_runs(run or ()),
        baseline=baseline,
        price_per_hour=price_per_hour,
        losses=losses,
    )
    if save_runs is not None:
        save_runs.mkdir(parents=True, exist_ok=True)
    evaluation = _evaluation(command_line(context), _measure(invocation, folders, options))
    _write(invocation, evaluation, save_runs, markdown, html)
    if save_losses is not None:
        _save_losses(save_losses, evaluation)
        invocation.notice(f"wrote {save_losses}")


def _refuse_with_suite(folders: list[Path], *, given: bool) -> None:
    if given:
        raise typer.BadParameter(
            "only --limit, --baseline and --save-baseline go together with --suite; --split, --measures, --qrels, "
            "--system, --run, --price-per-hour, --save-runs, --markdown, --html, --no-losses and --save-losses have no "
            "meaning with --suite"
        )
    if len(folders) > 1:
        raise typer.BadParameter(f"--suite takes one FOLDER, not {len(folders)}")


def _require_folders(invocation: Invocation, folders: list[Path], *, qrels: bool, runs: bool) -> None:
    if not folders and not (qrels and runs):
        raise typer.BadParameter("name the FOLDER of a collection, or --suite negation, or --qrels FILE and --run FILE")
    if len(folders) > 1 and (qrels or runs or invocation.index is not None):
        raise typer.BadParameter("--qrels, --run and --index belong to one collection; name one FOLDER")
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise typer.BadParameter("two of the collections have the same name; rename a FOLDER")


def _measure(invocation: Invocation, folders: list[Path], options: EvaluateOptions) -> tuple[CollectionReport, ...]:
    from pipelines.evaluation import evaluate_collection, evaluate_runs
    from pipelines.render.output import step_progress

    if not folders:
        return (evaluate_runs(options),)
    config, index = _place(invocation)
    with step_progress(quiet=invocation.quiet) as on_progress:
        return tuple(
            evaluate_collection(folder, config, index=index, options=options, on_progress=on_progress)
            for folder in folders
        )


def _evaluation(command: str, collections: tuple[CollectionReport, ...]) -> Evaluation:
    from pipelines.evaluation import Evaluation
    from pipelines.evaluation.report import machine_facts
    from retrieval import __version__
    from retrieval.manifest import timestamp

    return Evaluation(
        command=command,
        version=__version__,
        date=timestamp(),
        machine=machine_facts(),
        collections=collections,
    )


def _write(
    invocation: Invocation, evaluation: Evaluation, save_runs: Path | None, markdown: Path | None, html: Path | None
) -> None:
    from pipelines.render.evaluation import render_evaluation
    from pipelines.render.output import output_console, plain, write_json
    from pipelines.render.report_html import html_report
    from pipelines.render.report_markdown import markdown_report

    if invocation.json:
        record = plain(evaluation)
        for collection in record["collections"]:
            # Judgements are in their file; ids for each query are the business of --save-runs and --save-losses.
            del collection["qrels"]
            if collection["losses"] is not None:
                del collection["losses"]["lost"]
            for system in collection["systems"]:
                del system["run"]
        write_json(record)
    else:
        render_evaluation(output_console(), evaluation)
    if markdown is not None:
        markdown.write_text(markdown_report(evaluation), encoding="utf-8")
    if html is not None:
        html.write_text(html_report(evaluation), encoding="utf-8")
    if save_runs is not None:
        _save_runs(save_runs, evaluation)
    for place in (markdown, html, save_runs):
        if place is not None:
            invocation.notice(f"wrote {place}")


def _save_runs(folder: Path, evaluation: Evaluation) -> None:
    from pipelines.evaluation.systems import file_name
    from retrieval.evaluation import write_qrels, write_run

    for collection in evaluation.collections:
        place = folder / (file_name(collection.name) or "collection")
        place.mkdir(exist_ok=True)
        write_qrels(place / "qrels.txt", collection.qrels)
        for system in collection.systems:
            write_run(place / f"{file_name(system.name)}.run", system.run, system.name)


def _save_losses(file: Path, evaluation: Evaluation) -> None:
    from pipelines.render.output import plain

    with file.open("w", encoding="utf-8") as lines:
        for collection in evaluation.collections:
            for lost in collection.losses.lost if collection.losses is not None else ():
                record = {"collection": collection.name, "text": collection.queries[lost.query], **plain(lost)}
                lines.write(json.dumps(record) + "\n")


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
