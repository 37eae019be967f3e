"""`retrieval tune`: choose the settings of an index by measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.tuning.report import TunePlan, TuneReport

_OUT = Path("tuned.yaml")
_SPLITS = ("dev", "train", "test")


def tune(
    invocation: Invocation,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Real queries: one to a line, or BEIR's queries.jsonl.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Judgements of --queries, or a BEIR folder.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a BEIR folder: qrels/NAME.tsv.  [default: dev, train, test]")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Queries at most.  [default: 200 made, 1,000 real]")
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="How long it may take, about; fewer queries are used if need be.")
    ] = 180.0,
    metric: Annotated[str, typer.Option(metavar="NAME", help="A measure of ir-measures.")] = "nDCG@10",
    folds: Annotated[int, typer.Option(min=2, metavar="N", help="Parts of the queries, each held out once.")] = 5,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the parts.")] = 0,
    latency_ms: Annotated[float | None, typer.Option(metavar="MS", help="What the median search may take.")] = None,
    max_bytes: Annotated[
        float | None, typer.Option(metavar="N", help="What the first stage may read, bytes a passage.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(metavar="X", help="What a cheaper setting may lose.  [default: 0.01, likeness 0.02]"),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Configuration file to write.")] = _OUT,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:
    """Choose dimensions, quantization, fusion, depth, blend and budget for the documents of the index.

    With --qrels by cross-validation: the figure to believe is that of queries that did not choose. Without, by likeness
    to exact search that reads every candidate, over --queries or titles and sentences of the index; likeness is not
    relevance, and nothing dearer than now is chosen. Where the queries cannot tell two settings apart, the cheaper one
    is taken.

    The index is only read. What is chosen is written to --out, to be used with --config.
    """
    from pipelines.commands.evaluation_inputs import require_place
    from pipelines.quantization.queries import read_queries
    from pipelines.render.output import output_console, plain, step_progress, write_json
    from pipelines.render.tune import render_tuning

    require_place(out, "--out")
    if out.exists() and not force:
        raise ValueError(f"{out} exists; --force overwrites it, --out FILE names another one")
    if split is not None and (qrels is None or not qrels.is_dir()):
        raise ValueError(f"--split {split} belongs to --qrels with a BEIR folder")
    texts, judgements = None, None
    if qrels is not None:
        texts, judgements, said = _judged(qrels, queries, split)
        invocation.notice(said, style="dim")
    elif queries is not None:
        texts = read_queries(queries)
    with invocation.open_existing() as pipeline, step_progress(quiet=invocation.quiet) as on_progress:
        report = pipeline.tune(
            queries=texts,
            qrels=judgements,
            sample=sample,
            metric=metric,
            folds=folds,
            seed=seed,
            latency_ms=latency_ms,
            max_bytes=max_bytes,
            max_loss=max_loss,
            seconds=seconds,
            on_plan=lambda plan: invocation.notice(_told(plan), style="dim"),
            on_progress=on_progress,
        )
        written = _write(invocation, pipeline.config, report, out, force=force)
    following = _following(invocation, report, out)
    if invocation.json:
        write_json({**plain(report), "written": str(out) if written else None, "next": following})
        return
    render_tuning(output_console(), report, out if written else None, following)


def _judged(path: Path, queries: Path | None, split: str | None) -> tuple[Any, Any, str]:
    """Queries, judgements, and which these are."""
    from pipelines.quantization.queries import read_judged
    from retrieval.evaluation import BeirCollection

    if not path.is_dir() or queries is not None:
        return *read_judged(path, queries), f"judgements: {path}"
    there = [name for name in _SPLITS if (path / "qrels" / f"{name}.tsv").is_file()]
    name = split or (there[0] if there else "test")
    collection = BeirCollection.open(path, name)
    qrels = {query: dict(grades) for query, grades in collection.qrels.items()}
    warning = "; what is chosen on it must not be reported on it" if name == "test" else ""
    return dict(collection.queries), qrels, f"judgements: {path}, split {name}{warning}"


def _told(plan: TunePlan) -> str:
    minutes = f"{plan.seconds / 60:.1f} minutes" if plan.seconds >= 90 else f"{plan.seconds:.0f} seconds"
    of = "" if plan.queries == plan.available else f" of {plan.available:,}"
    return (
        f"{plan.queries:,}{of} queries; the cross-encoder reads {plan.pairs:,} pairs at {plan.ms_per_pair:.0f} ms; "
        f"about {minutes} from here"
    )


def _write(invocation: Invocation, config: Any, report: TuneReport, out: Path, *, force: bool) -> bool:
    """Write the file, unless there is nothing to change."""
    from retrieval.config import SERVICE_SECTION

    if not report.changes:
        return False
    import yaml

    from pipelines.tuning.written import tuned_yaml, write_new

    raw = {} if invocation.config is None else yaml.safe_load(invocation.config.read_text(encoding="utf-8")) or {}
    write_new(out, tuned_yaml(config, report, service=raw.get(SERVICE_SECTION)), replace=force)
    return True


def _following(invocation: Invocation, report: TuneReport, out: Path) -> list[str]:
    """The commands that come next."""
    import shlex

    if not report.changes:
        return []
    index = [] if invocation.index is None else ["--index", str(invocation.index)]
    tuned = shlex.join([*index, "--config", str(out)])
    first = []
    if report.needs == "rebuild":
        first = [f"retrieval ingest PATH --rebuild {tuned}"]
    elif report.needs == "quantize":
        quantization = report.setting.variant.quantization
        options = f"--kind {quantization.kind} --bits {quantization.bits:g}" if quantization.kind != "none" else "--off"
        first = [invocation.again(f"quantize {options}")]
    return [*first, f"retrieval search QUERY {tuned}"]
