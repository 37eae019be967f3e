"""Do our measures agree with ir-measures and pytrec_eval on saved runs? To 1e-9 for every query, or the exit code is 1.

    python benchmarks/measures_check.py DIR… [--out FILE.json]

DIR is what `retrieval evaluate … --save-runs DIR` wrote: a folder for each collection with ``qrels.txt`` and ``*.run``.
Both libraries read these files with their own readers. Queries without results count as zero on all sides.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ir_measures
import pytrec_eval

from retrieval.evaluation import evaluate_run, read_qrels, read_run

TOLERANCE = 1e-9
TREC_EVAL = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG@100": "ndcg_cut_100",
    "R@100": "recall_100",
    "RR": "recip_rank",
    "AP": "map",
    "P@10": "P_10",
}
"""Measures and what trec_eval calls them."""
MEASURES = (*TREC_EVAL, "RR@10", "P(rel=2)@5", "Success@5")

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Check:
    """The largest difference of any query in any measure, for one run.

    Args:
        collection: Name of the collection.
        run: Name of the run.
        queries: How many are judged.
        values: How many values were compared.
        ir_measures: Largest difference from ir-measures.
        pytrec_eval: Largest difference from pytrec_eval.
    """

    collection: str
    run: str
    queries: int
    values: int
    ir_measures: float
    pytrec_eval: float


def check_folder(folder: Path) -> list[Check]:
    """Check every run of a folder with ``qrels.txt``."""
    return [check_run(folder / "qrels.txt", path) for path in sorted(folder.glob("*.run"))]


def check_run(qrels: Path, run: Path) -> Check:
    """Measure one run three times and compare the values of every query."""
    judged = read_qrels(qrels)
    ours = evaluate_run(judged, read_run(run).results, MEASURES).per_query
    first, second = _by_ir_measures(qrels, run), _by_pytrec_eval(qrels, run)
    return Check(
        collection=qrels.parent.name,
        run=run.stem,
        queries=len(judged),
        values=len(judged) * (len(MEASURES) + len(TREC_EVAL)),
        ir_measures=_largest(ours, first),
        pytrec_eval=_largest({name: ours[name] for name in TREC_EVAL}, second),
    )


def _by_ir_measures(qrels: Path, run: Path) -> Values:
    names = {ir_measures.parse_measure(name): name for name in MEASURES}
    values: dict[str, dict[str, float]] = {name: {} for name in MEASURES}
    judged, results = ir_measures.read_trec_qrels(str(qrels)), ir_measures.read_trec_run(str(run))
    for metric in ir_measures.iter_calc(list(names), judged, results):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    return values


def _by_pytrec_eval(qrels: Path, run: Path) -> Values:
    with qrels.open(encoding="utf-8") as judgements, run.open(encoding="utf-8") as results:
        judged, ranked = pytrec_eval.parse_qrel(judgements), pytrec_eval.parse_run(results)
    rows = pytrec_eval.RelevanceEvaluator(judged, set(TREC_EVAL.values())).evaluate(ranked)
    return {name: {query: row[theirs] for query, row in rows.items()} for name, theirs in TREC_EVAL.items()}


def _largest(ours: Values, theirs: Values) -> float:
    return max(
        abs(value - theirs[name].get(query, 0.0)) for name, values in ours.items() for query, value in values.items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each run and the largest difference of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="what --save-runs wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the differences as JSON")
    options = parser.parse_args(arguments)
    found = sorted({path.parent for folder in options.folders for path in folder.rglob("qrels.txt")})
    checks = [check for folder in found for check in check_folder(folder)]
    if not checks:
        shown = ", ".join(str(folder) for folder in options.folders)
        parser.error(
            f"no qrels.txt with a *.run beside it under {shown}; make them with 'retrieval evaluate --save-runs'"
        )
    print(f"{'collection':<16} {'run':<16} {'queries':>7} {'values':>8} {'ir-measures':>12} {'pytrec_eval':>12}")
    for one in checks:
        differences = f"{one.ir_measures:>12.1e} {one.pytrec_eval:>12.1e}"
        print(f"{one.collection:<16.16} {one.run:<16.16} {one.queries:>7,} {one.values:>8,} {differences}")
    largest = max(max(one.ir_measures, one.pytrec_eval) for one in checks)
    compared = sum(one.values for one in checks)
    print(f"largest of {compared:,} differences: {largest:.1e} (at most {TOLERANCE:.0e} is agreement)")
    if options.out is not None:
        record = {"tolerance": TOLERANCE, "largest": largest, "runs": [asdict(one) for one in checks]}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0 if largest <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
