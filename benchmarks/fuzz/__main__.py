"""Run all targets in turn: ``python -m benchmarks.fuzz --minutes 60 --work DIR --out benchmarks/fuzz.json``.

Stopped and started again with the same work folder it goes on: the minutes are those of all runs together, and what
atheris has learnt stays. ``--targets`` runs some of them, ``--list`` names them. The table beside the JSON file is made
from it alone; ``--report`` makes it again.
"""

from __future__ import annotations

import argparse
import base64
import json
import struct
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.fuzz.catalogue import targets
from benchmarks.fuzz.child import COUNTS
from benchmarks.fuzz.report import report, setting
from benchmarks.fuzz.target import Target

SLICE_S = 30
_STARTING_S = 180


def folder_of(work: Path, target: str) -> Path:
    """Where one target keeps its things."""
    return work / "".join(letter if letter.isalnum() else "-" for letter in target)


def run_slice(target: Target, module: str, work: Path, engine: str, seconds: int, seed: int) -> dict[str, Any]:
    """Feed one target in a child for so many seconds; what it did, also where it died."""
    folder = folder_of(work, target.name)
    folder.mkdir(parents=True, exist_ok=True)
    counts = folder / COUNTS
    counts.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.fuzz.child", target.name, str(folder), "--engine", engine]
    command += ["--module", module, "--seconds", str(seconds), "--seed", str(seed)]
    began = time.monotonic()
    with (folder / "log").open("ab") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=log, timeout=seconds + _STARTING_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    shared = counts.read_bytes() if counts.exists() else bytes(16)
    cases, size = struct.unpack("<QQ", shared[:16])
    done = {"cases": cases, "seconds": round(time.monotonic() - began, 1), "code": code}
    if code != 0 and cases:
        note_death(folder, code, shared[16 : 16 + size])
    return done


def note_death(folder: Path, code: int, data: bytes) -> None:
    """Write down what a child was fed when it died, or was ended for taking too long or too much."""
    kind = {-1: "Hang", 70: "Timeout or memory", 71: "Memory", 77: "Crash"}.get(code, f"Died with {code}")
    path = folder / "findings" / f"died-{abs(code)}.json"
    path.parent.mkdir(exist_ok=True)
    times = json.loads(path.read_text(encoding="utf-8"))["times"] if path.exists() else 0
    record = {"error": kind, "message": "too long, too much memory, or killed", "place": "process"}
    record |= {"times": times + 1, "data": base64.b64encode(data).decode(), "traceback": ""}  # type: ignore[dict-item]
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")


def findings(work: Path, target: str) -> list[dict[str, Any]]:
    """What a target has raised, without the inputs."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder_of(work, target).glob("findings/*.json"))
    ]
    return [{name: one[name] for name in ("error", "place", "message", "times")} for one in found]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Slices of all targets in turn until the minutes are over; written down after each."""
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    state_file = work / "state.json"
    state: dict[str, Any] = {"targets": {}, "seconds": 0.0, "slices": 0}
    if state_file.exists():
        state = json.loads(state_file.read_text(encoding="utf-8"))
    modules = targets()
    chosen = [each for each in modules if not arguments.targets or each.name in arguments.targets]
    while state["seconds"] < arguments.minutes * 60:
        # Whose turn it is: who has had the least of the share that it should have.
        target = min(chosen, key=lambda each: _had(state, each.name)["seconds"] / each.weight)
        left = arguments.minutes * 60 - state["seconds"]
        seconds = max(5, min(int(SLICE_S * target.weight), int(left)))
        done = run_slice(target, modules[target], work, arguments.engine, seconds, seed=1 + state["slices"])
        had = _had(state, target.name)
        before = had["seconds"]
        had |= {
            "cases": had["cases"] + done["cases"],
            "seconds": round(before + done["seconds"], 1),
            "states": target.states,
        }
        had |= {"slices": had["slices"] + 1, "findings": findings(work, target.name)}
        state["targets"][target.name] = had
        state |= {"seconds": round(state["seconds"] + done["seconds"], 1), "slices": state["slices"] + 1}
        state_file.write_text(json.dumps(state, indent=1), encoding="utf-8")
        total = sum(each["cases"] for each in state["targets"].values())
        print(
            f"{target.name}: {done['cases']:,} cases, {len(had['findings'])} findings; {total:,} in all",
            flush=True,
        )
    return {"setting": setting(arguments.minutes, arguments.engine), **state}


def _had(state: dict[str, Any], name: str) -> dict[str, Any]:
    empty = {"cases": 0, "seconds": 0.0, "slices": 0, "findings": [], "states": ""}
    return dict(state["targets"].get(name, empty))


def main() -> int:
    """Fuzz, write the numbers and the table; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--work", type=Path, help="what is learnt and found is kept here")
    parser.add_argument("--out", type=Path, help="the numbers, as JSON; the table goes beside them, as .md")
    parser.add_argument(
        "--engine", choices=("atheris", "hypothesis"), default="atheris" if find_spec("atheris") else "hypothesis"
    )
    parser.add_argument("--targets", nargs="*", help="names; all without it")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--report", action="store_true", help="make the table again from the numbers that are there")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(each.name for each in targets()))
        return 0
    if arguments.out is None or (arguments.work is None and not arguments.report):
        parser.error("say where to work and to write: --work DIR --out FILE.json")
    if not arguments.report:
        content = run(arguments)
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    content = json.loads(arguments.out.read_text(encoding="utf-8"))
    arguments.out.with_suffix(".md").write_text(report(content), encoding="utf-8")
    return 1 if any(each["findings"] for each in content["targets"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
