"""`retrieval distill`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.corpus_texts import CorpusTexts


def distill(
    invocation: Invocation,
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Sentence transformer: a folder or a hub name.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the static model.")],
    corpus: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Files or folders to take words and sentences from.")
    ] = None,
    dim: Annotated[int | None, typer.Option(metavar="N", help="Dimensions.", show_default="256")] = None,
    vocabulary: Annotated[
        str | None, typer.Option(metavar="WHICH", help="teacher, both, or corpus.", show_default="both with a corpus")
    ] = None,
    weighting: Annotated[
        str | None, typer.Option(metavar="HOW", help="zipf or corpus.", show_default="corpus with a corpus")
    ] = None,
    min_count: Annotated[int, typer.Option(min=1, metavar="N", help="Occurrences that a new word needs.")] = 5,
    max_words: Annotated[int, typer.Option(min=0, metavar="N", help="New words at most.")] = 20_000,
    phrases: Annotated[Path | None, typer.Option(metavar="FILE", help="Phrases that get an entry, one a line.")] = None,
    find_phrases: Annotated[
        bool, typer.Option("--find-phrases", help="Entries for negated and frequent phrases of the corpus.")
    ] = False,
    sentences: Annotated[
        int, typer.Option(min=0, metavar="N", help="Sentences of the corpus to train on; 0 for none.")
    ] = 20_000,
    minutes: Annotated[float, typer.Option(min=0.0, metavar="M", help="Time for these sentences.")] = 5.0,
    format: Annotated[
        str, typer.Option(metavar="NAME", help="two-stage, model2vec, or sentence-transformers.")
    ] = "two-stage",
    precision: Annotated[str, typer.Option(metavar="TYPE", help="int8 or float32, of two-stage.")] = "int8",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in OUT.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Choice and order of the sentences.")] = 0,
) -> None:
    """Make a static model out of a sentence transformer, for a corpus when one is given.

    The corpus is --corpus, or else the index of --index. Its frequent words get entries of their own, and the model is
    trained until sentences of the corpus point where the teacher puts them.
    """
    from pipelines.distill import DistillPlan, Format, distill_model
    from pipelines.render.distill import render_distillation
    from pipelines.render.output import output_console, plain, step_progress, write_json
    from retrieval.training.static.distill import Vocabulary, Weighting
    from retrieval.training.static.vocabulary import PhraseSettings
    from retrieval.training.table import Precision

    for option, value, allowed in (
        ("--vocabulary", vocabulary, get_args(Vocabulary)),
        ("--weighting", weighting, get_args(Weighting)),
        ("--format", format, get_args(Format)),
        ("--precision", precision, get_args(Precision)),
    ):
        if value is not None and value not in allowed:
            raise ValueError(f"{option} is {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")
    plan = DistillPlan(
        teacher=teacher,
        out=out,
        dim=dim,
        vocabulary=vocabulary,  # type: ignore[arg-type]  # checked above
        weighting=weighting,  # type: ignore[arg-type]
        least=min_count,
        words=max_words,
        phrases=phrases,
        find=PhraseSettings() if find_phrases else None,
        sentences=sentences,
        minutes=minutes,
        format=format,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        overwrite=overwrite,
        seed=seed,
    )
    with ExitStack() as stack:
        texts = _corpus(invocation, tuple(corpus or ()), stack)
        on_progress = stack.enter_context(step_progress(quiet=invocation.quiet))
        report = distill_model(plan, texts, on_progress)
    if invocation.json:
        write_json(plain(report))
    elif not invocation.quiet:
        render_distillation(output_console(), report)


def _corpus(invocation: Invocation, paths: tuple[Path, ...], stack: ExitStack) -> CorpusTexts | None:
    from pipelines.corpus_texts import CorpusTexts, index_corpus

    if paths:
        return CorpusTexts.of_paths(paths, invocation.settings())
    if invocation.index is not None:
        return index_corpus(stack.enter_context(invocation.open_existing()))
    return None
