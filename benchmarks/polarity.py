"""When the order of twins is settled: how far apart two logits have to be, where texts differ only by polarity.

    python benchmarks/polarity.py --negation DIR --model DIR --out benchmarks/polarity.json [--write]

DIR of ``--negation`` as for ``negation.py``. The margin is the smallest step of 0.05 logits from which on nine of ten
orders are right, over claims (fever_symmetric, test) and questions (condaqa_contrast_dev), each set weighing the same.
``--write`` puts it into calibration.json of the model. The suite of this project is measured with it, not fitted to.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.negation import read_sets
from retrieval.config import RerankConfig
from retrieval.datatypes import FloatArray
from retrieval.errors import ModelError
from retrieval.evaluation.minimal_pairs import open_suite
from retrieval.polarity import polarity_twins
from retrieval.rerankers import TwinMargin, open_reranker, read_calibration, write_calibration

TARGET = 0.9
STEP = 0.05
FITTED_TO = ("fever_symmetric", "condaqa_contrast_dev")
Score = Callable[[str, Sequence[str]], FloatArray]


def evenly(pairs: Sequence[Any], count: int) -> list[Any]:
    count = min(count, len(pairs))
    return [pairs[place * len(pairs) // count] for place in range(count)]


def apart(asked: Sequence[tuple[str, str, str]], score: Score) -> NDArray[np.float64]:
    """Logit of the text that answers less that of its twin, for each query."""
    return np.asarray([float(np.subtract(*score(query, [right, wrong]))) for query, right, wrong in asked])


def worth(sets: Mapping[str, NDArray[np.float64]], margin: float) -> dict[str, float]:
    """Share of right orders from the margin on and below it, every set weighing the same, and the share above."""
    rows = [(np.abs(one) >= margin, one > 0) for one in sets.values()]
    reached = sum(float(above.mean()) for above, _ in rows)
    right = sum(float((above & ok).mean()) for above, ok in rows)
    missed = sum(float((~above & ok).mean()) for above, ok in rows)
    return {
        "margin": round(margin, 2),
        "above": reached / len(rows),
        "right_above": right / reached if reached else 1.0,
        "right_below": missed / (len(rows) - reached) if reached < len(rows) else 1.0,
    }


def smallest_margin(sets: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    steps = (worth(sets, STEP * number) for number in range(1, 200))
    return next(step for step in steps if step["right_above"] >= TARGET)


def found(pairs: Sequence[tuple[str, str]]) -> float:
    """Share of pairs that are told to be twins."""
    return float(np.mean([polarity_twins(pair)[0] is not None for pair in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--negation", type=Path, required=True, help="folder with the sets of negation.py")
    parser.add_argument("--model", type=Path, required=True, help="folder of the cross-encoder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--pairs", type=int, default=360, help="of each set at most, evenly spread")
    parser.add_argument("--write", action="store_true", help="put the margin into calibration.json of the model")
    arguments = parser.parse_args()
    reranker = open_reranker(RerankConfig(), arguments.model)
    pairs = {name: evenly(read, arguments.pairs) for name, read in read_sets(arguments.negation).items()}
    asked = {name: [(one.query, one.better, one.worse) for one in read] for name, read in pairs.items()}
    suite = open_suite("negation")
    asked["suite"] = [
        (pair.queries[side] or "", pair.texts[side], pair.texts[1 - side]) for pair, side in suite.queries
    ]
    distances = {name: apart(rows, reranker.score) for name, rows in asked.items()}
    chosen = smallest_margin({name: distances[name] for name in FITTED_TO})
    kinds = [pair.kind for pair, _ in suite.queries]
    texts = {kind: [pair.texts for pair in suite.pairs if pair.kind == kind] for kind in suite.kinds}
    report = {
        "fitted": chosen,
        "sets": {name: worth({name: one}, chosen["margin"]) | {"pairs": len(one)} for name, one in distances.items()},
        "kinds": {
            kind: worth({kind: distances["suite"][np.asarray(kinds) == kind]}, chosen["margin"]) for kind in suite.kinds
        },
        "twins_found": {kind: found(one) for kind, one in texts.items()}
        | {name: found([(right, wrong) for _, right, wrong in asked[name]]) for name in pairs},
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))
    if arguments.write:
        calibration = read_calibration(arguments.model)
        if calibration is None:
            raise ModelError(f"{arguments.model} has no calibration.json; fit one with benchmarks/calibration.py first")
        of = f"{sum(len(asked[name]) for name in FITTED_TO)} pairs of {' and '.join(FITTED_TO)}; benchmarks/polarity.md"
        twins = TwinMargin(chosen["margin"], chosen["right_above"], chosen["right_below"], of)
        write_calibration(arguments.model, replace(calibration, twins=twins))


if __name__ == "__main__":
    main()
