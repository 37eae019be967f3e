"""Run the benchmarks on BEIR folders: ``python -m benchmarks FOLDER…``; each result is a JSON file beside this one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

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
    """`retrieval evaluate` of each collection; per-query values and runs are left out of the file."""
    reports = []
    for folder in collections:
        command = [sys.executable, "-m", "pipelines", "evaluate", str(folder), "--json"]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
        report["collection"] = folder.name
        for system in report["systems"]:
            del system["per_query"], system["run"]
        reports.append(report)
        for system in report["systems"]:
            print(folder.name, system["name"], {name: round(value, 4) for name, value in system["means"].items()})
    (HERE / "quality.json").write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")


def script(name: str, *arguments: str) -> None:
    """Run one benchmark of this folder on one thread for each library, as its protocol says."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(HERE / name), *arguments], check=True, env=environment)


if __name__ == "__main__":
    main()
