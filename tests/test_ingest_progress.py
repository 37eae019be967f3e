"""The live line of an ingest: how fast every stage is, on a terminal of 80 columns."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import TwoStagePipeline
from pipelines.render import output
from retrieval.config import parse_config
from retrieval.datatypes import IngestProgress

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STAGES = ("repairing", "sampling", "reading", "removing", "committing", "reweighting", "indexing")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm-256color")
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, highlight=False, emoji=False, soft_wrap=True)
    monkeypatch.setattr(output, "error_console", lambda: console)
    return written


def last_frame(screen: io.StringIO, progress: IngestProgress) -> list[str]:
    with output.ingest_progress(quiet=False) as show:
        assert show is not None
        show(progress)
    # The spinner begins a frame, control sequences move back to its first line.
    frame = CONTROL.sub("", screen.getvalue()).rstrip("\r\n")
    begins = max(frame.rfind(spinner) for spinner in SPINNER)
    return [line.rstrip() for line in frame[begins:].replace("\r", "\n").split("\n") if line.strip()]


def test_each_stage_has_its_rate(screen: io.StringIO) -> None:
    progress = IngestProgress("reading", 2000, 3000, 12, 2.0, read_seconds=0.1, encode_seconds=0.5, write_seconds=1.5)
    first, second = last_frame(screen, progress)
    assert "reading 2,000 documents  3,000 passages  12 rejected" in first
    assert second.strip() == "passages/s 1,500: read 30,000  encode 6,000  write 2,000"


@pytest.mark.parametrize("stage", STAGES)
def test_millions_fit_into_80_columns(screen: io.StringIO, stage: str) -> None:
    progress = IngestProgress(stage, 1_234_567, 12_345_678, 12_345, 4100.5, 300.0, 1000.0, 2900.0)
    first, second = last_frame(screen, progress)
    assert f"{stage} 1,234,567 documents  12,345,678 passages  12,345 rejected" in first
    assert re.search(r" \d:\d\d:\d\d$", first)
    assert "passages/s 3,011" in second
    assert ("write 4,257" in second) == (stage != "reweighting")
    assert max(len(first), len(second)) <= 80


def test_before_anything_is_written_there_is_no_rate(screen: io.StringIO) -> None:
    (line,) = last_frame(screen, IngestProgress("reading", 256, 0, 0, 0.5, read_seconds=0.1))
    assert "reading 256 documents  0 passages" in line


@pytest.mark.parametrize("second", [False, True])
def test_an_ingest_tells_how_long_each_stage_has_worked(tmp_path: Path, second: bool) -> None:
    path = tmp_path / "records.jsonl"
    records = [{"_id": str(number), "text": f"tides and bread {number}"} for number in range(900)]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    told: list[IngestProgress] = []
    config = parse_config({"documents": {"second_process": second}, "store": {"kind": "memory"}})
    with TwoStagePipeline.open(config=config) as pipeline:
        report = pipeline.ingest(path, on_progress=told.append)
    reading = [each for each in told if each.stage == "reading" and each.passages]
    assert [each.passages for each in reading] == sorted(each.passages for each in reading)
    for name in ("read_seconds", "encode_seconds", "write_seconds"):
        spent = [getattr(each, name) for each in reading]
        assert 0 < spent[0] <= spent[-1] <= getattr(report, name)
        assert spent == sorted(spent)
    assert reading[-1].passages == report.passages == 900
