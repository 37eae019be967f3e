"""What cross-encoders see of negation: nearly equal texts that must be ordered rightly.

    python benchmarks/negation.py --negation DIR --reranker starter-reranker --reranker DIR --out negation

DIR holds condaqa_contrast_dev.jsonl.gz, fever_symmetric.jsonl.gz (split test) and scifact_antonym_queries.jsonl.gz with
scifact_antonym_corpus.jsonl.gz. Writes OUT.json and OUT.md. A text is read whole, cut at the tokens of the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval.config import RerankConfig
from retrieval.evaluation.contrast import (
    ACCURACY_BY_CHANCE,
    BOTH_BY_CHANCE,
    ContrastPair,
    contrast_accuracy,
    read_claim_contrasts,
    read_constraint_contrasts,
    read_question_contrasts,
)
from retrieval.models import bundled_models, find_model
from retrieval.rerankers import open_reranker


def read_sets(folder: Path) -> dict[str, list[ContrastPair]]:
    """The three sets by name."""
    return {
        "condaqa_contrast_dev": read_question_contrasts(folder / "condaqa_contrast_dev.jsonl.gz"),
        "fever_symmetric": read_claim_contrasts(folder / "fever_symmetric.jsonl.gz", "test"),
        "scifact_antonym": read_constraint_contrasts(
            folder / "scifact_antonym_queries.jsonl.gz", folder / "scifact_antonym_corpus.jsonl.gz"
        ),
    }


def measure(name: str, sets: dict[str, list[ContrastPair]], threads: int) -> dict[str, Any]:
    """Results of one cross-encoder on every set."""
    folder = find_model(name) if name in bundled_models() or Path(name).is_dir() else None
    reranker = open_reranker(RerankConfig(model=name, threads=threads), folder)
    results = {}
    for title, pairs in sets.items():
        started = time.perf_counter()
        results[title] = asdict(contrast_accuracy(pairs, reranker.score))
        print(f"{name} {title} {results[title]} {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return {"reranker": reranker.name, "results": results}


def table(reports: list[dict[str, Any]]) -> str:
    """Markdown table, one line a cross-encoder and set."""
    lines = [
        "| cross-encoder | set | pairs | right | 95 % | couples | both right | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        for title, result in report["results"].items():
            shares = [
                f"{result[name]:.3f} | {result[interval][0]:.3f} to {result[interval][1]:.3f}"
                for name, interval in (("accuracy", "accuracy_interval"), ("both_accuracy", "both_interval"))
            ]
            lines.append(
                f"| {report['reranker']} | {title} | {result['pairs']} | {shares[0]} | {result['both']} | {shares[1]} |"
            )
    lines.append(f"| *chance* | | | {ACCURACY_BY_CHANCE:.3f} | | | {BOTH_BY_CHANCE:.3f} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every cross-encoder that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--negation", type=Path, required=True, help="folder with the three sets")
    parser.add_argument("--reranker", action="append", required=True, help="bundled name, folder or hub name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("negation"), help="files OUT.json and OUT.md")
    given = parser.parse_args()
    sets = read_sets(given.negation)
    reports = [measure(name, sets, given.threads) for name in given.reranker]
    given.out.with_suffix(".json").write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    given.out.with_suffix(".md").write_text(table(reports), encoding="utf-8")
    print(table(reports))


if __name__ == "__main__":
    main()
