"""The table of the field: how vectors are compressed and searched, dimensions, and both stages, on judged collections.

    python -m benchmarks.quantization path/to/beir/scifact … --out benchmarks/quantization.json

Every row is measured in the embedded engine with the pipeline as it is shipped; `benchmarks/quantization.md` has the
protocol. What is done is kept in a folder beside the result (``quantization.work``), so that a run that was stopped or
killed goes on where it was, and the cross-encoder reads each pair of query and passage once. Tables go to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.quantization_report import record_of, together
from benchmarks.quantization_run import OutOfTimeError, Run
from benchmarks.quantization_systems import SYSTEMS, remembered_scores
from benchmarks.quantization_tables import filled, markdown, plot
from retrieval.config import Config
from retrieval.evaluation import BeirCollection


def main() -> None:
    arguments = _arguments()
    work = arguments.out.with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    config = Config.model_validate({"encoder": {"model": arguments.encoder}})
    deadline = time.monotonic() + arguments.minutes * 60
    with ExitStack() as stack:
        scores = stack.enter_context(closing(remembered_scores(work / "logits.sqlite", config)))
        runs = [
            stack.enter_context(
                Run(
                    BeirCollection.open(folder, arguments.split),
                    work,
                    config,
                    adapted=arguments.adapted,
                    read=arguments.read,
                    dims=arguments.dims,
                    deadline=deadline,
                )
            )
            for folder in arguments.collections
        ]
        try:
            for dims in () if arguments.measured_only else runs[0].dims:
                for run in runs:
                    run.measure(scores, dims, arguments.systems)
        except OutOfTimeError:
            sys.exit(f"{arguments.minutes:g} minutes are over; the same command goes on from here")
        found = [run.values() for run in runs]
    records = [record_of(table) for table in found]
    if arguments.plot:
        plot(records, arguments.plot)
    if len(found) > 1:
        records.append(record_of(together(found)))
    arguments.out.write_text(json.dumps(compact(records)) + "\n", encoding="utf-8")
    if arguments.into:
        arguments.into.write_text(filled(arguments.into.read_text(encoding="utf-8"), records), encoding="utf-8")
    else:
        print(markdown(records))


def compact(value: Any) -> Any:
    """Records for a file that is kept: four digits, changes as ``[mean, low, high]``, no verdicts in words."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        if value.keys() == {"mean", "low", "high"}:
            return [round(number, 4) for number in value.values()]
        return {key: compact(one) for key, one in value.items() if key != "verdict"}
    return [compact(one) for one in value] if isinstance(value, list) else value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("collections", nargs="+", type=Path, help="BEIR folders")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--split", default="test", help="judgements")
    parser.add_argument("--encoder", default="starter-static", help="name or folder of a static model")
    parser.add_argument("--adapted", action="store_true", help="with the encoder adapted to the documents")
    parser.add_argument("--dims", type=int, nargs="*", help="numbers of dimensions, most first; else all to an eighth")
    parser.add_argument("--read", type=int, help="queries that the cross-encoder reads for, drawn at random; else all")
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="all when left out")
    parser.add_argument("--measured-only", action="store_true", help="tables of what was measured so far")
    parser.add_argument("--into", type=Path, help="Markdown file whose marked tables are renewed, instead of stdout")
    parser.add_argument("--plot", type=Path, help="SVG file to write: quality against bytes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long; go on another time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
