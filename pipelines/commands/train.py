"""`retrieval train`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.train_config import TrainConfig


def train(
    invocation: Invocation,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the model; empty or new.")],
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="PAIRS", help="Files or folders of pairs; instead of those of --config."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Static model to start from.", show_default="starter-static")
    ] = None,
    new_tokenizer: Annotated[
        int | None, typer.Option(metavar="SIZE", help="Train a tokenizer of so many tokens first.")
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="BEIR folder to choose the best checkpoint by.")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Its judgements.", show_default="dev")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the pairs.", show_default="1")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu or cuda.", show_default="a GPU if any")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
) -> None:
    """Train a static model on pairs of query and passage, with the trainer of sentence-transformers.

    PAIRS are JSON lines (.gz too), CSV, TSV or Parquet with columns such as query, positive and negatives, or anchor,
    positive and negative. Without --evaluate some pairs are held out to choose the best checkpoint. Everything else is
    set in a configuration: configs/train-english.yaml and configs/train-multilingual.yaml name all keys. Ctrl-C keeps a
    checkpoint.
    """
    from pipelines.render.output import output_console, plain, write_json
    from pipelines.render.train import render_training, training_progress
    from pipelines.train import train_model

    options = {
        "start.model": start,
        "tokenizer.size": new_tokenizer,
        "evaluation.collection": None if evaluate is None else str(evaluate),
        "evaluation.split": split,
        "training.epochs": epochs,
        "training.device": device,
    }
    config = _settings(invocation, pairs or [], options)
    with _stopped_gently(invocation) as should_stop, training_progress(quiet=invocation.quiet) as on_progress:
        report = train_model(config, out, resume=resume, on_progress=on_progress, should_stop=should_stop)
    if not report.finished:
        raise KeyboardInterrupt
    if invocation.json:
        write_json(plain(report))
    elif not invocation.quiet:
        render_training(output_console(), report)


def _settings(invocation: Invocation, pairs: list[str], options: dict[str, str | int | None]) -> TrainConfig:
    """The configuration of the invocation, with what was said on the command line on top."""
    import json

    from pipelines.train_config import TrainConfig
    from retrieval.config import load_settings

    if invocation.index is not None:
        raise ValueError(f"--index {invocation.index} has no meaning for train; name files of pairs")
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    if pairs:
        given.append(f"data={json.dumps([{'path': path} for path in pairs])}")
    return load_settings(TrainConfig, invocation.config, [*given, *(invocation.overrides or ())])


@contextmanager
def _stopped_gently(invocation: Invocation) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; the second time it interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        invocation.notice("stopping after this step; Ctrl-C again stops at once, without a checkpoint")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
