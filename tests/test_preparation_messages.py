"""What two processes of an ingest say to each other, and what becomes of it when that goes wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import TwoStagePipeline, preparation_child, preparation_process, second_process
from pipelines.preparation import ReadBatch
from pipelines.preparation_messages import Channel, Cut, Encoded, Failed, Places, Read, Recipe, Texts
from pipelines.preparation_process import OtherProcess
from retrieval.config import Config, parse_config
from retrieval.datatypes import Document, Passage
from retrieval.encoders import Bm25Encoder, encode_passages
from retrieval.errors import RetrievalError
from retrieval.models import open_encoder

WORDS = ("tides", "bread", "guitars", "whales", "moon", "dough", "sea", "string", "flour", "depth")
SPOILED = """
import pipelines.preparation
def spoiled(self, documents):
    {action}
pipelines.preparation.Preparing.cut = spoiled
from pipelines.preparation_child import main
main()
"""


class LocalText(str):
    """A string of a class that another process cannot import."""

    __slots__ = ()


def memory(*, second: bool) -> Config:
    return parse_config({"documents": {"second_process": second}, "store": {"kind": "memory"}})


def lines(path: Path, count: int) -> Path:
    chosen = random.Random(1)
    records = [{"_id": f"d{number}", "text": " ".join(chosen.choices(WORDS, k=40))} for number in range(count)]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_messages_name_no_class_but_ours_and_those_of_arrays() -> None:
    named: set[str] = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add(f"{module}.{name}")
            return super().find_class(module, name)

    attack = "cos\nsystem\n(S'false'\ntR."
    document = Document(attack, f"tides {attack}", attack, {attack: [attack, 1, None, 0.5]}, attack)
    passage = Passage(document.id, 0, document.text, 0, len(document.text), attack, (attack,))
    config = Config()
    vectors = encode_passages(open_encoder(config.encoder), Bm25Encoder(config.bm25), [passage.indexed_text], 10.0)
    messages = [
        Read.of(ReadBatch([document], ["0" * 32]), 0.0),
        Cut(10.0, texts=Texts.of([document])),
        Places.of([[passage]]),
        Encoded(vectors, 0.0),
    ]
    carried = [Noting(io.BytesIO(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))).load() for message in messages]
    assert carried[0].batch().documents == [document]
    assert carried[2].cut([document]) == [[passage]]
    ours = {name for name in named if name.startswith(("pipelines.preparation", "retrieval."))}
    assert {name.split(".")[0] for name in named - ours} == {"numpy"}
    assert len(ours) >= len(messages)


def test_texts_arrive_as_plain_strings() -> None:
    document = Document("a", LocalText("tides"), LocalText("On tides"), {"not": "sent"}, "nor this")
    texts = Texts.of([document])
    assert [type(text) for text in (*texts.texts, *texts.titles)] == [str, str]
    assert texts.documents() == [Document("", "tides", "On tides")]


def test_what_cannot_be_sent_is_an_error_at_the_other_end() -> None:
    sent = io.BytesIO()
    channel = Channel(io.BytesIO(), sent)
    document = Document("a", "tides", metadata={"lock": threading.Lock()})
    preparation_child._send_one(channel, Read.of(ReadBatch([document], [""]), 0.0))
    preparation_child._send_one(channel, Places([]))
    received = Channel(io.BytesIO(sent.getvalue()), io.BytesIO())
    failed = received.receive()
    assert isinstance(failed, Failed)
    assert failed.reading
    assert "pickle" in str(failed.error)
    assert received.receive() == Places([])


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OtherProcess]]:
    """The second processes of this test; all have ended when it has."""
    processes: list[OtherProcess] = []

    def start(recipe: Recipe) -> OtherProcess:
        processes.append(OtherProcess(recipe))
        return processes[-1]

    monkeypatch.setattr(second_process, "OtherProcess", start)
    yield processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.stdout.buffer.write(b'cno_such_module\\nThing\\n.')", "cannot be used: ModuleNotFoundError"),
        ("import sys; sys.stdout.buffer.write(b'no message')", "ended with status 0"),
        ("raise SystemExit(3)", "ended with status 3"),
    ],
)
def test_a_process_that_cannot_work_is_done_without(
    tmp_path: Path,
    spoil: list[OtherProcess],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    program: str,
    reason: str,
) -> None:
    monkeypatch.setattr(preparation_process, "_START", program)
    with TwoStagePipeline.open(config=memory(second=True)) as pipeline, caplog.at_level(logging.WARNING):
        assert pipeline.ingest(lines(tmp_path / "records.jsonl", 300)).added == 300
    assert len(spoil) == 1
    assert "stay in one process" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("raise MemoryError", "ran out of memory; what was written stays.*second_process: false"),
        ("import os; os.abort()", "was killed by signal 6; what was written stays.*second_process: false"),
        ("raise ValueError('a tide too many')", "a tide too many"),
    ],
)
def test_a_process_that_fails_at_work_ends_the_run(
    tmp_path: Path, spoil: list[OtherProcess], monkeypatch: pytest.MonkeyPatch, action: str, reason: str
) -> None:
    path = lines(tmp_path / "records.jsonl", 600)
    kind = ValueError if "ValueError" in action else RetrievalError
    with TwoStagePipeline.open(config=memory(second=True)) as pipeline:
        with monkeypatch.context() as patched:
            patched.setattr(preparation_process, "_START", SPOILED.format(action=action))
            with pytest.raises(kind, match=reason):
                pipeline.ingest(path)
        assert pipeline.ingest(path).added == 600
    assert len(spoil) == 2


def test_messages_larger_than_a_pipe_do_not_stop_both(spoil: list[OtherProcess]) -> None:
    chosen = random.Random(2)
    long = "\n\n".join(" ".join(chosen.choices(WORDS, k=100)) for _ in range(700))
    made = []

    def documents() -> Iterator[tuple[str, str]]:
        for number in range(1200):
            if number == 600 and spoil:
                assert spoil[0].is_ready(wait=True)
            yield f"d{number}", LocalText(long if number % 400 == 399 else f"tides {number}")

    for second in (False, True):
        with TwoStagePipeline.open(config=memory(second=second)) as pipeline:
            report = pipeline.ingest(documents())
            assert report.added == 1200
            ids = [(point.id, point.payload["text"]) for point in pipeline.store.scan()]
            made.append((report.passages, ids, pipeline.manifest.terms))
    assert made[0] == made[1]
    assert len(long) > 2**18
    assert len(spoil) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the child in /proc")
def test_an_interrupt_while_it_starts_shows_one_message(tmp_path: Path) -> None:
    path = lines(tmp_path / "records.jsonl", 3000)
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pipelines",
        "ingest",
        str(path),
        "--index",
        str(tmp_path / "index"),
    ]
    command += ["--set", "documents.second_process=true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as writer:
        children = Path(f"/proc/{writer.pid}/task/{writer.pid}/children")
        deadline = time.monotonic() + 120
        while not (found := children.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        # As a terminal does: to everyone in the foreground.
        os.killpg(writer.pid, signal.SIGINT)
        _, errors = writer.communicate(timeout=60)
    assert writer.returncode not in (0, None)
    assert b"Traceback" not in errors
    # Where the interrupt came before its number was known, it ends when it finds its input closed.
    while Path(f"/proc/{found[0]}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
