"""What a threshold of a good answer keeps of its promise, for queries that it was not fitted on.

    python benchmarks/answer_threshold.py --raw DIR --out benchmarks/answer_threshold.json

DIR is what `calibration.py collect` has filled: development sets, no test sets. Of each set one half of the queries
fits the threshold, as `retrieval calibrate` does, and the other half is asked; ten splits of each set.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval.rerankers import Outcomes, PlattCalibration, answer_threshold

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9)
SPLITS = 10
NO_ANSWER = 0.5
# Any rising function gives the same answers: the threshold is on the same passage.
PROBABILITY = PlattCalibration(0.813, -2.501)
Reads = Sequence[Sequence[tuple[float, bool]]]


def outcomes(own: Reads, without: Reads) -> Outcomes:
    """Rows of judged queries, and of queries without an answer, half of the weight each."""
    rows: list[tuple[float, float | None, float]] = []
    for reads, share in ((own, 1 - NO_ANSWER), (without, NO_ANSWER)):
        asked = [read for read in reads if read]
        for read in asked:
            right = [logit for logit, label in read if label]
            best = float(PROBABILITY.probability(max(logit for logit, _ in read)))
            rows.append((best, float(PROBABILITY.probability(max(right))) if right else None, share / len(asked)))
    return Outcomes.of(rows)


def halves(content: Mapping[str, Any], seed: int, simulated: bool) -> tuple[Outcomes, Outcomes]:
    own, foreign = list(content["queries"]), list(content["foreign"])
    shuffle = random.Random(seed)
    shuffle.shuffle(own)
    shuffle.shuffle(foreign)
    parts = []
    for half in (0, 1):
        mine = own[half * len(own) // 2 : (half + 1) * len(own) // 2]
        strange = foreign[half * len(foreign) // 2 : (half + 1) * len(foreign) // 2]
        hidden = [[row for row in read if not row[1]] for read in mine]
        parts.append(outcomes(mine, hidden if simulated else strange))
    return parts[0], parts[1]


def measure(contents: Mapping[str, Mapping[str, Any]], target: float, *, simulated: bool) -> dict[str, float]:
    """Precision over all splits of all sets, mean recall, and how often the target could not be reached."""
    reached = right = refused = tried = 0.0
    recalls = []
    for content in contents.values():
        for seed in range(SPLITS):
            fitted, asked = halves(content, seed, simulated)
            tried += 1
            try:
                threshold = answer_threshold(fitted, target).probability
            except ValueError:
                refused += 1
                continue
            reached += float(asked.weights[asked.best >= threshold].sum())
            right += float(asked.weights[asked.right >= threshold].sum())
            recalls.append(asked.at(threshold)[1])
    return {
        "target": target,
        "precision": right / reached,
        "recall": statistics.mean(recalls),
        "not_reached": refused / tried,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="folder that `calibration.py collect` has filled")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    contents = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.raw.glob("*.json"))
    }
    report = {
        name: [measure(contents, target, simulated=simulated) for target in TARGETS]
        for name, simulated in (("judged passages left out", True), ("queries of other sets", False))
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, rows in report.items():
        print(name)
        for row in rows:
            print("|", " | ".join(f"{value:.2f}" for value in row.values()), "|")


if __name__ == "__main__":
    main()
