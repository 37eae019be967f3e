"""`retrieval train` on a corpus of synonyms that the start cannot know: rankings rise, runs resume, files agree."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.train import TrainReport, train_model
from pipelines.train_config import TrainConfig
from retrieval.config import load_settings
from retrieval.encoders import StaticEncoder
from retrieval.errors import ConfigError
from retrieval.training.contrastive.checkpoints import complete_checkpoints
from retrieval.training.contrastive.new_tokenizer import train_tokenizer, transfer_vectors
from retrieval.training.contrastive.training import (
    ContrastiveSettings,
    TrainingSet,
    TrainProgress,
    matryoshka_dimensions,
    train_contrastive,
)
from retrieval.training.pairs import Pair
from retrieval.training.table import StaticTable
from tests.static_models import random_table, word_tokenizer

pytest.importorskip("datasets", reason="training needs the extra train")
pytest.importorskip("accelerate", reason="training needs the extra train")

CONFIGS = Path(__file__).parents[1] / "configs"
CONCEPTS = 60
FILLERS = [f"filler{number}" for number in range(20)]
# Queries say q7 where documents say d7: what they share is chance alone before training.
WORDS = [*(f"q{number}" for number in range(CONCEPTS)), *(f"d{number}" for number in range(CONCEPTS)), *FILLERS]


def synonym_pairs(count: int, seed: int = 0) -> list[Pair]:
    chosen = random.Random(seed)
    numbers = [chosen.randrange(CONCEPTS) for _ in range(count)]
    return [
        Pair(
            f"q{number} {chosen.choice(FILLERS)}",
            f"d{number} {chosen.choice(FILLERS)} {chosen.choice(FILLERS)}",
            (f"d{(number + 1) % CONCEPTS} {chosen.choice(FILLERS)}",),
        )
        for number in numbers
    ]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "random-words"
    tokenizer = word_tokenizer(WORDS)
    StaticTable(random_table(tokenizer, dim=64), tokenizer).save(folder, name="random-words")
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synonyms")
    (folder / "qrels").mkdir()
    documents = [{"_id": f"d{n}", "title": "", "text": f"d{n} filler1"} for n in range(CONCEPTS)]
    queries = [{"_id": f"q{n}", "text": f"q{n} filler2 filler3"} for n in range(CONCEPTS)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(CONCEPTS))]
    (folder / "qrels" / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "synonyms.jsonl"
    rows = [{"query": p.query, "positive": p.positive, "negatives": p.negatives} for p in synonym_pairs(600)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(start: Path | None, pairs: Path, collection: Path | None = None, **training: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "start": {"model": None if start is None else str(start)},
            "data": [{"path": str(pairs)}],
            "training": {"epochs": 4, "batch_size": 50, "learning_rate": 0.1, "checkpoint_every": 12, **training},
            "evaluation": {"collection": None if collection is None else str(collection)},
        }
    )


@pytest.fixture(scope="module")
def trained(
    start: Path, collection: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainReport, list[TrainProgress]]:
    out = tmp_path_factory.mktemp("trained") / "model"
    config = config_of(start, pairs_file, collection)
    config = config.model_copy(
        update={"output": config.output.model_copy(update={"sentence_transformers": True, "keep_checkpoints": True})}
    )
    seen: list[TrainProgress] = []
    return train_model(config, out, on_progress=seen.append), seen


def test_training_finds_synonyms_that_chance_does_not(trained: tuple[TrainReport, list[TrainProgress]]) -> None:
    report, _ = trained
    assert report.before is not None
    assert report.before.mean < 0.2
    assert report.after[0].mean > 0.9
    assert report.after[0].low > report.before.high
    assert report.losses[-1][1] < report.losses[0][1] / 2
    assert (report.finished, report.step, report.steps) == (True, 48, 48)
    assert [step for step, _ in report.scores] == [12, 24, 36, 48]
    assert dict(report.scores)[report.best_step] == max(score for _, score in report.scores)
    assert report.pairs == {"synonyms": 600}
    assert (report.device, report.precision) == ("cpu", "float32")


def test_the_first_dimensions_work_alone(trained: tuple[TrainReport, list[TrainProgress]]) -> None:
    report, _ = trained
    assert report.matryoshka == (64, 32)
    assert [score.dimensions for score in report.after] == [64, 32]
    assert report.after[1].mean > report.after[0].mean - 0.05
    assert json.loads((report.out / "config.json").read_text(encoding="utf-8"))["matryoshka"] == [64, 32]


def test_the_written_model_gives_the_same_vectors_in_both_libraries(
    trained: tuple[TrainReport, list[TrainProgress]],
) -> None:
    from sentence_transformers import SentenceTransformer

    report, _ = trained
    texts = ["q3 filler1", "d3 d3 unheard words, filler2", "unheard", "", " ".join(WORDS * 5)]
    ours = StaticEncoder.open(report.out).encode_documents(texts)
    theirs = SentenceTransformer(str(report.out / "sentence-transformers"), device="cpu").encode(texts)
    assert np.abs(ours - theirs).max() < 1e-6
    assert np.abs(StaticEncoder.open(report.out / "sentence-transformers").encode_documents(texts) - ours).max() < 1e-6


def test_progress_is_told_and_checkpoints_stay_inside(trained: tuple[TrainReport, list[TrainProgress]]) -> None:
    report, seen = trained
    assert {progress.stage for progress in seen} == {"reading", "training", "checking"}
    last = seen[-1]
    assert (last.done, last.of, last.checkpoint) == (48, 48, 48)
    assert last.score == report.scores[-1][1]
    names = {path.name for path in report.out.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "tokenizer.json", "training.json"),
        *("sentence-transformers", "checkpoints"),
    }
    kept = {path.name for path in complete_checkpoints(report.out / "checkpoints")}
    assert len(kept) == 2
    assert kept >= {"checkpoint-48", f"checkpoint-{report.best_step}"}


def small(**changes: object) -> ContrastiveSettings:
    base = ContrastiveSettings(epochs=2, batch_size=40, learning_rate=0.1, checkpoint_every=4, device="cpu")
    return replace(base, **changes)  # type: ignore[arg-type]


def train_small(
    start: Path,
    folder: Path,
    settings: ContrastiveSettings,
    *,
    resume: bool = False,
    on_progress: Callable[[TrainProgress], None] = lambda progress: None,
    stop_at: int | None = None,
) -> tuple[np.ndarray | None, int]:
    """Vectors, and the step that was reached."""
    reached = 0

    def watch(progress: TrainProgress) -> None:
        nonlocal reached
        reached = progress.done if progress.of else 0
        on_progress(progress)

    result = train_contrastive(
        StaticTable.open(start),
        [TrainingSet("a", synonym_pairs(160)), TrainingSet("b", synonym_pairs(80, seed=1))],
        settings,
        folder,
        resume=resume,
        on_progress=watch,
        # `reached` is of the step before.
        should_stop=lambda: stop_at is not None and reached + 1 >= stop_at,
    )
    return None if result.table is None else result.table.vectors, result.step


@pytest.fixture(scope="module")
def uninterrupted(start: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    vectors, step = train_small(start, tmp_path_factory.mktemp("whole"), small())
    assert step == 12
    assert vectors is not None
    return vectors


def test_a_run_that_was_stopped_and_killed_ends_like_one_that_was_not(
    start: Path, uninterrupted: np.ndarray, tmp_path: Path
) -> None:
    stopped, step = train_small(start, tmp_path, small(), stop_at=7)
    assert (stopped, step) == (None, 7)
    assert complete_checkpoints(tmp_path)[0].name == "checkpoint-7"
    # A kill in the middle of writing the next one leaves weights that are cut off, and no state.
    shutil.copytree(tmp_path / "checkpoint-7", tmp_path / "checkpoint-8")
    os.truncate(tmp_path / "checkpoint-8" / "model.safetensors", 1000)
    (tmp_path / "checkpoint-8" / "trainer_state.json").unlink()
    vectors, step = train_small(start, tmp_path, small(), resume=True)
    assert step == 12
    assert vectors is not None
    assert np.abs(vectors - uninterrupted).max() < 1e-5
    assert np.abs(uninterrupted - StaticTable.open(start).vectors).max() > 0.1


def test_other_data_or_settings_are_not_resumed(start: Path, tmp_path: Path) -> None:
    train_small(start, tmp_path, small(), stop_at=2)
    with pytest.raises(ValueError, match=r"cannot resume .*learning_rate was 0.1, is 0.2.* another output folder"):
        train_small(start, tmp_path, small(learning_rate=0.2), resume=True)


def test_half_precision_trains_nearly_the_same(start: Path, uninterrupted: np.ndarray, tmp_path: Path) -> None:
    vectors, _ = train_small(start, tmp_path, small(precision="bf16"))
    assert vectors is not None
    changes = [(one - StaticTable.open(start).vectors).ravel() for one in (vectors, uninterrupted)]
    assert 0.8 < np.corrcoef(*changes)[0, 1] < 0.9999


def test_hard_negatives_are_pushed_away(start: Path, uninterrupted: np.ndarray, tmp_path: Path) -> None:
    without, _ = train_small(start, tmp_path, small(hard_negatives=0))
    assert without is not None
    pairs = synonym_pairs(100, seed=5)

    def margin(vectors: np.ndarray) -> float:
        table = StaticTable.open(start).with_vectors(vectors)
        queries = table.encode([pair.query for pair in pairs])
        good, bad = (table.encode(texts) for texts in ([p.positive for p in pairs], [p.negatives[0] for p in pairs]))
        return float(((queries * good).sum(axis=1) - (queries * bad).sum(axis=1)).mean())

    assert margin(uninterrupted) > margin(without) + 0.01


def test_a_full_disk_keeps_the_last_complete_checkpoint(start: Path, uninterrupted: np.ndarray, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: TrainProgress) -> None:
        if progress.checkpoint == 4:
            # From here on no file can be longer than this, which is what a full disk looks like from above.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    try:
        with pytest.raises(OSError, match=r"no space is left; step 4 is kept: free some and go on with --resume"):
            train_small(start, tmp_path, small(), on_progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    vectors, _ = train_small(start, tmp_path, small(), resume=True)
    assert vectors is not None
    assert np.abs(vectors - uninterrupted).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "torch finds no CUDA GPU; leave it out to train on the CPU"),
        ({"precision": "fp16"}, "'fp16' needs a GPU"),
        ({"matryoshka": (128,)}, "matryoshka dimension 128 is not from 1 to 64"),
    ],
)
def test_what_this_machine_or_model_lacks_is_refused(
    start: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=message):
        train_small(start, tmp_path, small(**changes))


def test_dimensions_that_work_alone_follow_from_the_model() -> None:
    assert matryoshka_dimensions(None, 256) == (256, 128, 64, 32)
    assert matryoshka_dimensions(None, 2000) == (2000, 1024, 512, 256, 128, 64, 32)
    assert matryoshka_dimensions(None, 24) == (24,)
    assert matryoshka_dimensions((), 256) == (256,)
    assert matryoshka_dimensions((100,), 256) == (256, 100)


def test_tokens_of_a_new_tokenizer_take_the_vectors_of_the_old_model(start: Path) -> None:
    table = StaticTable.open(start)
    texts = ["q1 d1 q1 d1 q1d1 unheard"] * 50
    tokenizer = train_tokenizer(texts, 300, "wordpiece")
    vectors = transfer_vectors(table, tokenizer, seed=0)
    ids, old = tokenizer.get_vocab(), table.tokenizer.get_vocab()
    assert vectors[ids["q1"]].tolist() == table.vectors[old["q1"]].tolist()
    scale = np.linalg.norm(table.vectors, axis=1).mean()
    assert 0 < np.linalg.norm(vectors[ids["unheard"]]) < 0.3 * scale
    assert len(vectors) == tokenizer.get_vocab_size()


def test_a_tokenizer_of_bytes_knows_every_script() -> None:
    texts = ["\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "Stra\u00dfe stra\u00dfe"] * 20
    tokenizer = train_tokenizer(texts, 320, "bpe")
    assert 256 < tokenizer.get_vocab_size() <= 320
    table = StaticTable(random_table(tokenizer), tokenizer)
    assert np.linalg.norm(table.encode(["\u0938 \U0001f600", "\u65e5\u672c\u8a9e"]), axis=1) == pytest.approx([1, 1])
    assert len(tokenizer.encode("STRASSE stra\u00dfe").ids) < 14
    with pytest.raises(ValueError, match="at least 300 tokens, not 10"):
        train_tokenizer(texts, 10)


def test_the_english_configuration_holds_every_key_with_its_default() -> None:
    path = CONFIGS / "train-english.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    expected = TrainConfig(data=load_settings(TrainConfig, path).data).model_dump(mode="json")
    assert written == expected


def test_the_multilingual_configuration_trains_on_the_layout_that_it_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("parallel", "similarity"):
        Path(folder).mkdir()
    chosen = random.Random(2)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [
        ("".join(chosen.choices(letters[:13], k=5)), "".join(chosen.choices(letters[13:], k=5))) for _ in range(40)
    ]
    said = [[chosen.choice(words) for _ in range(3)] for _ in range(400)]
    lines = ["english\tnon_english", *("\t".join(" ".join(word[i] for word in one) for i in (0, 1)) for one in said)]
    Path("parallel/en-de.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scored = [f"{words[n][1]} a,b {words[n][1]},{5 if n % 2 else 1}" for n in range(39)]
    Path("similarity/sts-de.csv").write_text("\n".join(["sentence1,sentence2,score", *scored]), encoding="utf-8")
    overrides = ["tokenizer.size=400", "training.batch_size=64", "start.dimensions=64", "evaluation.held_out=0.1"]
    config = load_settings(TrainConfig, CONFIGS / "train-multilingual.yaml", overrides)
    report = train_model(config, tmp_path / "model")
    assert set(report.pairs) == {"en-de", "sts-de"}
    assert report.pairs["sts-de"] < 20  # those judged 1 are left out
    assert report.before is not None
    assert report.after[0].mean > report.before.mean + 0.2
    assert (tmp_path / "model" / "sentence-transformers" / "modules.json").is_file()


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    return done.exit_code, done.stdout, done.stderr


FAST = ("--set", "training.batch_size=50", "--set", "training.learning_rate=0.1", "--epochs", 3)


def test_the_command_trains_with_a_new_tokenizer_and_says_what_it_did(
    start: Path, pairs_file: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    out = tmp_path / "model"
    options = ("--start", start, "--new-tokenizer", 400, "--evaluate", collection, *FAST)
    code, stdout, stderr = run("train", pairs_file, "--out", out, *options)
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert max(map(len, lines)) <= 80 + len(str(out))
    assert lines[0].startswith(str(out)) or str(out) in stdout
    table = {line.split()[0]: line.split() for line in lines if line.startswith(("before", "after "))}
    assert float(table["after"][2]) > float(table["before"][2]) + 0.5
    assert "600: synonyms 600" in stdout
    assert list(home.iterdir()) == []
    assert not (out / "checkpoints").exists()
    found = StaticEncoder.open(out).encode_documents(["q3", "d3", "d4"])
    assert found[0] @ found[1] > found[0] @ found[2]


def test_ctrl_c_keeps_a_checkpoint_and_resume_goes_on(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    options = ("train", pairs_file, "--out", out, "--start", start, *FAST[:-1], 12, "--set", "evaluation.held_out=0")

    def press() -> None:
        while not list(out.glob("checkpoints/checkpoint-*/trainer_state.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    code, stdout, stderr = run(*options)
    assert code == 130
    assert "run the same command with --resume" in stderr
    assert complete_checkpoints(out / "checkpoints")
    assert not (out / "config.json").exists()
    code, _, stderr = run(*options)
    assert code == 2
    assert "holds a training that was stopped; go on with --resume" in stderr
    code, stdout, stderr = run(*options, "--resume", "--json")
    report = json.loads(stdout)
    assert (code, report["finished"], report["step"]) == (0, True, 144)
    code, _, stderr = run(*options, "--resume")
    assert (code, "there is nothing to resume" in stderr) == (2, True)


@pytest.fixture
def bad_files(tmp_path: Path) -> Path:
    (tmp_path / "columns.jsonl").write_text('{"url": "u", "body": "b"}\n', encoding="utf-8")
    (tmp_path / "one.jsonl").write_text('{"query": "q1", "positive": "d1"}\n', encoding="utf-8")
    (tmp_path / "few.csv").write_text("query,positive\nq1,\nq2,d2\n", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("columns.jsonl",), 1, "no column for the query (such as query, anchor, question)"),
        (("missing.jsonl",), 1, "no file"),
        (("none-*.csv",), 1, "no file matches"),
        ((), 2, "there is no data: name files of pairs"),
        (("one.jsonl",), 2, "needs at least 2 pairs, and 1 can be used"),
        (("few.csv",), 2, "1 can be used; 1 rows were rejected, the first: few.csv:2: column 'positive' is empty"),
        (("one.jsonl", "--device", "tpu"), 2, "training.device"),
        (("one.jsonl", "--set", "training.rate=1"), 2, "unknown key training.rate; allowed here: batch_size"),
        (("one.jsonl", "--start", "nowhere"), 1, "model 'nowhere' is neither bundled"),
        (("one.jsonl", "--resume"), 2, "holds no training to resume"),
    ],
)
def test_errors_of_the_command(
    bad_files: Path, start: Path, arguments: tuple[str, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bad_files)
    model = () if "--start" in arguments else ("--start", start)
    found, _, stderr = run("train", *arguments, "--out", "new/model", *model, "--set", "evaluation.held_out=0")
    assert (found, message in stderr) == (code, True), stderr
    assert not Path("new/model").exists()


def test_a_folder_with_files_is_not_trained_into(bad_files: Path) -> None:
    code, _, stderr = run("train", bad_files / "one.jsonl", "--out", bad_files / "full")
    assert (code, "is not empty; name another folder" in stderr) == (2, True)
    with pytest.raises(ConfigError, match=r"without start.model there is no tokenizer"):
        load_settings(TrainConfig, None, ["start.model=null"])
