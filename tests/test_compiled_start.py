"""How compiled kernels come about: in a process of their own, once per machine, and never at anybody's cost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from retrieval.encoders import StaticEncoder, compiled_status, prepare_compiled
from retrieval.encoders.compiled import build, kernels, objects, start, word_kernels
from retrieval.encoders.compiled.objects import Kernels
from retrieval.encoders.compiled.places import UnusableError, alone
from retrieval.encoders.compiled.start import Start
from retrieval.encoders.compiled.trial import interpreted, try_out
from retrieval.models import find_model
from tests import static_models

ENOUGH = 2**21


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """The first bulk work on a machine: a process of its own compiles meanwhile."""
    running = Start([tmp_path_factory.mktemp("kernels")])
    assert running.status.state == "waiting"
    assert running.kernels(ENOUGH) is None
    assert running.status.state in ("compiling", "ready")
    assert running._builder is not None
    running._builder.join()
    return running


@pytest.fixture(scope="module")
def made(first: Start) -> Path:
    """A folder with compiled kernels."""
    assert first.status.file is not None, first.status.reason
    return first.status.file.parent


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_little_text_and_queries_never_load_them(made: Path) -> None:
    waiting = Start([made])
    for _ in range(100_000):
        assert waiting.kernels(start.SMALL - 1) is None
    for _ in range(50):
        assert waiting.kernels(2**15) is None
    assert waiting.status.state == "waiting"


@pytest.mark.parametrize(("calls", "characters"), [(1, 2**17), (2, 2**16), (64, 2**15)])
def test_much_text_loads_what_is_there(calls: int, characters: int, made: Path) -> None:
    loading = Start([made])
    for _ in range(calls - 1):
        assert loading.kernels(characters) is None
    assert loading.kernels(characters) is not None
    assert loading.status.state == "ready"
    assert loading.kernels(start.SMALL - 1) is None, "not worth it for one call"
    assert loading.kernels(start.SMALL) is not None


def test_a_small_job_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = threading.Event()
    monkeypatch.setattr(Start, "_build", lambda self: called.set())
    small = Start([tmp_path])
    assert small.kernels(2**19) is None
    assert small.status == start.CompiledStatus("waiting", "not compiled; fewer than 1,048,576 characters of bulk work")
    assert not called.is_set()
    assert small.kernels(2**19) is None
    assert called.wait(60)
    assert small.status.state == "compiling"


def test_the_first_call_does_not_wait_for_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, calls = threading.Event(), []

    def slowly(self: Start) -> None:
        calls.append(threading.current_thread())
        gate.wait(60)

    monkeypatch.setattr(Start, "_build", slowly)
    slow = Start([tmp_path])
    assert slow.kernels(ENOUGH) is None
    assert slow.status.state == "compiling"
    assert [slow.kernels(ENOUGH) for _ in range(10)] == [None] * 10
    gate.set()
    assert len(calls) == 1
    assert calls[0] is not threading.current_thread()


def test_a_run_switches_over_when_they_are_ready(first: Start, made: Path) -> None:
    assert first.status.state == "ready", first.status.reason
    assert isinstance(first.kernels(ENOUGH), Kernels)
    assert [path.name for path in made.glob("kernels-*")] == [objects.file_name()]


def test_a_look_loads_but_never_compiles(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Start([made]).look().state == "ready"
    nothing = Start([tmp_path / "none"])
    assert nothing.look().reason == "not compiled on this machine yet; the first bulk work does it"
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("RETRIEVAL_COMPILED", "0")
    assert nothing.look().state == "off"
    monkeypatch.delenv("RETRIEVAL_COMPILED")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert nothing.look().reason == "numba is not installed; pip install numba"
    assert nothing.status.state == "waiting", "bulk work says it again, aloud"


def test_switched_off(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_COMPILED", "0")
    off = Start([made])
    assert off.kernels(ENOUGH) is None
    assert off.prepare().state == off.status.state == compiled_status().state == "off"
    monkeypatch.delenv("RETRIEVAL_COMPILED")
    assert off.status.state == "waiting"
    assert off.kernels(ENOUGH) is not None
    monkeypatch.setenv("RETRIEVAL_COMPILED", "0")
    assert off.kernels(ENOUGH) is None, "also when loaded"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"x" + b[41:], lambda b: b + b"x"]
)
def test_a_damaged_file_is_made_again(
    damage: object, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    name = objects.file_name()
    good = (made / name).read_bytes()
    (tmp_path / name).write_bytes(damage(good))
    with pytest.raises(UnusableError, match="is damaged"):
        objects.read(tmp_path / name)

    def rebuilt(self: Start) -> None:
        (tmp_path / name).write_bytes(good)
        self._load()

    monkeypatch.setattr(Start, "_build", rebuilt)
    assert Start([tmp_path]).prepare().state == "ready"
    assert "compiled kernels are not loaded" in caplog.text
    assert "is damaged" in caplog.text


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes on this system")
def test_a_file_that_others_can_write_is_not_loaded(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / objects.file_name()
    path.write_bytes((made / path.name).read_bytes())
    path.chmod(0o666)
    careful = Start([tmp_path])
    assert careful.kernels(2**17) is None
    assert careful.status.state == "waiting"
    assert f"compiled kernels are not loaded: {path} can be written by other users" in caplog.text
    path.chmod(0o644)
    assert Start([tmp_path]).kernels(2**17) is not None


def test_nowhere_to_keep_them_is_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    status = Start([tmp_path / "file" / "below"]).prepare()
    assert status.state == "failed"
    assert status.reason.startswith(f"no folder for compiled kernels: {tmp_path}/file/below: Not a directory")
    assert "encoding goes on without compiled kernels" in caplog.text


def test_a_file_under_a_wrong_name_is_not_loaded(made: Path, tmp_path: Path) -> None:
    (tmp_path / "kernels-0.bin").write_bytes((made / objects.file_name()).read_bytes())
    with pytest.raises(UnusableError, match=r"kernels-0.bin was made as kernels-.*, for another machine or version"):
        objects.read(tmp_path / "kernels-0.bin")


def test_a_file_for_another_processor_or_version_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    before = objects.file_name()
    monkeypatch.setattr(objects, "version", lambda name: "0")
    assert objects.file_name() != before


def test_without_numba_numpy_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else found(name))
    lean = Start([tmp_path])
    assert lean.kernels(ENOUGH) is None
    assert lean.status.state == "failed"
    assert lean.status.reason == "numba is not installed; pip install numba"
    assert "encoding goes on without compiled kernels: numba is not installed" in caplog.text
    assert lean.kernels(ENOUGH) is None
    assert len(caplog.records) == 1, "said once"


def test_a_broken_numba_is_a_reason_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise RuntimeError('cannot be used with this numpy')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = Start([tmp_path / "kernels"])
    status = broken.prepare()
    assert status.state == "failed"
    assert "cannot be used with this numpy" in status.reason
    assert list(tmp_path.glob("kernels/kernels-*")) == []


def test_a_process_that_dies_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_BUILD", "import os; os.kill(os.getpid(), 9) # {path}")
    assert Start([tmp_path]).prepare().reason == "the compiling process ended with -9"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "does not start" in Start([tmp_path]).prepare().reason
    monkeypatch.setattr(sys, "executable", "")
    assert "interpreter is not known" in Start([tmp_path]).prepare().reason


def test_kernels_that_compute_wrongly_are_not_used(made: Path) -> None:
    good = objects.read(made / objects.file_name())
    try_out(good)
    try_out(interpreted)

    def wrong(name: str, *arguments: objects.Argument) -> int:
        result = good(name, *arguments)
        if name == "sum_bytes" and not isinstance(arguments[-1], int):
            arguments[-1][0] += 1
        return result

    with pytest.raises(UnusableError, match="compiled sum_bytes computes wrongly"):
        try_out(wrong)


def test_only_one_of_several_processes_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes, compiled, read = {name: ("symbol", bytes(1000)) for name in kernels.KERNELS}, [], objects.read

    def compile_kernels() -> dict[str, tuple[str, bytes]]:
        compiled.append(threading.get_ident())
        return codes

    monkeypatch.setattr(build, "compile_kernels", compile_kernels)
    monkeypatch.setattr(build, "try_out", lambda call: None)
    monkeypatch.setattr(objects, "Kernels", lambda codes: codes)
    threads = [threading.Thread(target=build.build, args=([tmp_path],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1
    assert [path.name for path in tmp_path.glob("kernels-*")] == [objects.file_name()]
    assert read(tmp_path / objects.file_name()) == codes


def test_whoever_wants_to_compile_waits_only_for_living_processes(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from retrieval.encoders.compiled.places import alone
with alone(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    with alone(tmp_path):
        assert (tmp_path / "kernels.lock").exists()


def test_a_search_needs_neither_numba_nor_llvm() -> None:
    code = """
import sys
from retrieval.encoders import StaticEncoder, Bm25Encoder
from retrieval.config import Bm25Config
from retrieval.models import find_model
encoder = StaticEncoder.open(find_model("starter-static"))
for _ in range(50):
    encoder.encode_queries(["pipe not broken but leaking"])
    encoder.encode_documents(["some words of a window " * 20] * 20)
    Bm25Encoder(Bm25Config()).encode_queries(["pipe"])
print([name for name in ("numba", "llvmlite") if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_bulk_work_needs_no_numba_once_they_are_compiled() -> None:
    assert prepare_compiled().state == "ready"
    code = """
import sys
from retrieval.encoders import StaticEncoder, compiled_status
from retrieval.models import find_model
encoder = StaticEncoder.open(find_model("starter-static"))
for _ in range(3):
    encoder.encode_documents(["some words of a document " * 200] * 200)
print(compiled_status().state, "numba" in sys.modules)
"""
    assert run(code).strip() == "ready False"


def test_words_of_the_same_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "kernels", lambda characters: interpreted)  # the source itself
    monkeypatch.setattr(word_kernels, "mix", lambda code, chunk: np.uint64(12345))
    tokenizer = static_models.bert_tokenizer()
    tensors = {"embeddings": static_models.random_table(tokenizer)}
    encoder = StaticEncoder.open(static_models.write_own(tmp_path, tokenizer, tensors))
    texts = ["object list the", "the object", "extraordinarily extraordinary extraordinarily", "12345678a 12345678b"]
    fast = encoder.compiled(texts)
    assert fast is not None
    expected = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    assert fast.counts(texts).tolist() == fast.counts(texts).tolist() == expected
    found = fast.encode(texts)
    monkeypatch.setattr(start, "kernels", lambda characters: None)
    assert found.tobytes() == encoder.encode_documents(texts).tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_goes_on_by_itself() -> None:
    assert prepare_compiled().state == "ready"
    code = """
import os, threading
import numpy as np
from retrieval.encoders import StaticEncoder, prepare_compiled
from retrieval.models import find_model
assert prepare_compiled().state == "ready"
encoder = StaticEncoder.open(find_model("starter-static"))
texts = [f"document {number} about pipe{number} and leak{number} " * 100 for number in range(200)]
expected = encoder.encode_documents(texts).tobytes()
fast = encoder.compiled(texts)
fast.table._lock.acquire()  # as if another thread were learning at this moment
child = os.fork()
if not child:
    new = [text.replace("pipe", "tube") for text in texts]
    same = encoder.encode_documents(texts).tobytes() == expected
    os._exit(0 if same and encoder.encode_documents(new).any() else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
    assert run(code).strip() == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_compiling_does_not_wait_for_ever(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Start([made])
    running._status, running._process = start.CompiledStatus("compiling", "in the parent"), os.getpid() + 1
    running._lock.acquire()
    assert running.kernels(ENOUGH) is not None


def test_ahead_of_time_from_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retrieval.encoders.compiled"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ready: loaded from ")
    assert find_model("starter-static").is_dir()
