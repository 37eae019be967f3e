"""Ask your documents: answers with citations from a local index, through any OpenAI-compatible endpoint.

    export OPENAI_BASE_URL=http://localhost:8080/v1 OPENAI_MODEL=qwen3-8b
    python examples/rag_app/app.py --docs docs/ "how do I rotate the keys?"
    python examples/rag_app/app.py              # asks for questions until an empty line

The key, where the endpoint wants one, stands in OPENAI_API_KEY. Exit codes: 0 answered, 1 failed, 2 bad usage,
3 no answer in the documents.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import sys
from contextlib import closing
from pathlib import Path

from answering import Answer, Answerer
from chat import ChatError, ChatModel

from pipelines import TwoStagePipeline
from retrieval.config import Config, load_config
from retrieval.errors import ConfigError, RetrievalError
from retrieval.models import find_model
from retrieval.rerankers import RerankerCalibration, read_calibration

ANSWERED, FAILED, BAD_USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
_DIRECTION_MARKS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def main() -> int:
    """Run the application and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = _arguments()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except (ConfigError, ValueError) as error:
        return _failed(arguments, str(error), BAD_USAGE)
    except (ChatError, RetrievalError, OSError) as error:
        return _failed(arguments, str(error), FAILED)


def _run(arguments: argparse.Namespace) -> int:
    with closing(_model(arguments)) as model:
        return _with_model(arguments, model)


def _with_model(arguments: argparse.Namespace, model: ChatModel) -> int:
    config = load_config(arguments.config) if arguments.config else None
    if config is None and arguments.docs is None and not (arguments.index / "manifest.json").is_file():
        raise ValueError(f"there is no index in {arguments.index}; make one with --docs PATH")
    with TwoStagePipeline.open(arguments.index, config) as pipeline:
        if arguments.docs is not None:
            report = pipeline.ingest(arguments.docs)
            _note(
                f"{report.added} documents added, {report.changed} changed, {report.unchanged} unchanged, "
                f"{report.rejected_count} rejected"
            )
        calibration = _calibration(pipeline.config)
        answerer = Answerer(
            pipeline, model, calibration, needed=_needed(arguments, calibration), passages=arguments.passages
        )
        if arguments.question:
            return _ask(answerer, " ".join(arguments.question), as_json=arguments.json)
        return _converse(answerer)


def _model(arguments: argparse.Namespace) -> ChatModel:
    base_url, key = os.environ.get("OPENAI_BASE_URL") or None, os.environ.get("OPENAI_API_KEY") or None
    name = os.environ.get("OPENAI_MODEL")
    if base_url is None and key is None:
        raise ValueError("set OPENAI_BASE_URL to an OpenAI-compatible endpoint, or OPENAI_API_KEY to use OpenAI's own")
    if not name:
        raise ValueError("set OPENAI_MODEL to the name of the model")
    return ChatModel(
        name,
        base_url=base_url,
        api_key=key,
        stream=not arguments.no_stream,
        patience_s=arguments.patience,
        deadline_s=arguments.deadline,
    )


def _calibration(config: Config) -> RerankerCalibration | None:
    if config.rerank.enabled and config.rerank.depth:
        calibration = read_calibration(find_model(config.rerank.model))
        if calibration is None:
            _note(f"{config.rerank.model} is not calibrated: the model is asked whatever was found")
        return calibration
    _note("nothing is reranked: the model is asked whatever was found")
    return None


def _needed(arguments: argparse.Namespace, calibration: RerankerCalibration | None) -> float | None:
    if arguments.threshold is not None:
        return float(arguments.threshold)
    if calibration is None or arguments.precision == 0:
        return None
    return calibration.threshold(arguments.precision).probability


def _converse(answerer: Answerer) -> int:
    """Questions from standard input, one a line; a failure ends its question only."""
    code = ANSWERED
    while True:
        if sys.stdin.isatty():
            print("? ", end="", flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return code
        try:
            code = _ask(answerer, line.strip(), as_json=False)
        except ChatError as error:
            print(f"\nerror: {_clean(str(error))}", file=sys.stderr, flush=True)
            code = FAILED


def _ask(answerer: Answerer, question: str, *, as_json: bool) -> int:
    if as_json:
        answer = answerer.ask(question)
        print(json.dumps(dataclasses.asdict(answer), ensure_ascii=False, indent=1))
    else:
        answer = answerer.ask(question, lambda text: print(_clean(text), end="", flush=True))
        _show(answer)
    return REFUSED if answer.refused else ANSWERED


def _show(answer: Answer) -> None:
    """What stands below an answer, or instead of one."""
    if answer.refused == "nothing fits":
        near = "" if answer.probability is None else f" (probability {answer.probability:.2f}"
        near += f", {answer.needed:.2f} needed)" if near and answer.needed is not None else ")" if near else ""
        print(f"No answer: nothing in the index fits this question{near}.")
    elif answer.refused:
        print("No answer: the model finds none in the passages.")
    else:
        print("\n" if answer.text else "")
    cited = [source for source in answer.sources if source.number in answer.cited]
    shown = answer.sources if answer.refused else cited
    if shown:
        print("Closest passages" if answer.refused else "Sources")
    for source in shown:
        chance = "" if source.probability is None else f"  {source.probability:.2f}"
        name = source.title or source.document_id
        place = source.place if source.place and source.place != name else ""
        print(_clean(f"  [{source.number}]{chance}  {name}{'  ' + place if place else ''}").replace("\n", " "))
    unused = [f"[{source.number}]" for source in answer.sources if source not in shown]
    if unused:
        print(f"  also given: {' '.join(unused)}")
    for warning in answer.warnings:
        print(_clean(f"note: {warning}"))
    sys.stdout.flush()


def _clean(text: str) -> str:
    """Without what would steer a terminal or turn the direction of a line."""
    return "".join(sign for sign in text if sign in "\n\t" or (sign.isprintable() and sign not in _DIRECTION_MARKS))


def _note(text: str) -> None:
    print(_clean(text), file=sys.stderr)


def _failed(arguments: argparse.Namespace, message: str, code: int) -> int:
    if arguments.json:
        print(json.dumps({"error": message, "exit_code": code}, ensure_ascii=False))
    else:
        sys.stdout.flush()
    print(f"error: {_clean(message)}", file=sys.stderr)
    return code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rag_app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", nargs="*", help="the question; without one they are read line by line")
    parser.add_argument("--index", type=Path, default=Path("index"), help="folder of the index (default: ./index)")
    parser.add_argument("--config", type=Path, help="configuration file; default: what the index was built with")
    parser.add_argument("--docs", type=Path, help="file or folder to take into the index first")
    parser.add_argument("--passages", type=int, default=5, help="passages that the model gets (default: 5)")
    parser.add_argument(
        "--precision",
        type=float,
        default=0.55,
        help="ask the model only where this share of results holds an answer: 0.5, 0.55 (default) to 0.9; 0: always",
    )
    parser.add_argument(
        "--threshold", type=float, metavar="P", help="instead: ask the model only from this probability on, 0 to 1"
    )
    parser.add_argument("--patience", type=float, default=30.0, help="seconds without a sign (default: 30)")
    parser.add_argument("--deadline", type=float, default=120.0, help="seconds for a whole answer (default: 120)")
    parser.add_argument("--no-stream", action="store_true", help="for an endpoint without server-sent events")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    if not 1 <= arguments.passages <= 50:
        parser.error(f"--passages is from 1 to 50, not {arguments.passages}")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        parser.error(f"--threshold is from 0 to 1, not {arguments.threshold}")
    if not (arguments.patience > 0 and arguments.deadline > 0):
        parser.error(f"--patience and --deadline are above 0, not {arguments.patience} and {arguments.deadline}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
