"""Run the benchmarks on BEIR folders: ``python -m benchmarks FOLDER…``; each result is a JSON file beside this one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent


def main() -> None:
    """Quality of every collection, then speed of the first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("collections", nargs="+", type=Path, help="BEIR folders")
    collections = [folder.resolve() for folder in parser.parse_args().collections]
    quality(collections)
    first = str(collections[0])
    script("latency.py", "--collection", first, "--out", str(HERE / "latency.json"))
    model = str(ROOT / "retrieval" / "models" / "starter-static")
    script("encoding.py", "--corpus", first, "--model", model, "--json", str(HERE / "encoding.json"))


def quality(collections: list[Path]) -> None:
    """`retrieval evaluate` of each collection before and after `retrieval adapt`; per-query values are left out."""
    records = []
    for folder in collections:
        with tempfile.TemporaryDirectory() as index:
            before = evaluated(folder, index)
            adapted = command("adapt", "--index", index, "--json")
            after = evaluated(folder, index)
        records.append({"collection": folder.name, "before": before, "adapt": adapted, "after": after})
        for state, report in (("before", before), ("after", after)):
            for system in report["systems"]:
                means = {name: round(value, 4) for name, value in system["means"].items()}
                print(folder.name, state, system["name"], means, flush=True)
        (HERE / "quality.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def evaluated(folder: Path, index: str) -> dict[str, Any]:
    (report,) = command("evaluate", str(folder), "--index", index, "--json")["collections"]
    report |= {"collection": folder.name, "queries": len(report["queries"])}
    for system in report["systems"]:
        del system["per_query"]
    return report


def command(*arguments: str) -> dict[str, Any]:
    run = [sys.executable, "-m", "pipelines", *arguments, "--quiet"]
    record: dict[str, Any] = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    return record


def script(name: str, *arguments: str) -> None:
    """Run one benchmark of this folder on one thread for each library, as its protocol says."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(HERE / name), *arguments], check=True, env=environment)


if __name__ == "__main__":
    main()
