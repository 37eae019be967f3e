"""The harness of `make bench`: what it makes of numbers, what it says of what is missing, and one whole small run."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import __main__ as bench
from benchmarks.bench import cold_start, encode, growth, ingest, machine, quality, script_quality, setup, two_stage
from benchmarks.bench.corpora import Corpus, open_corpus
from benchmarks.bench.figures import (
    TIMES,
    Figure,
    Findings,
    Missing,
    Row,
    Taken,
    interleaved,
    ratio,
    ratio_figure,
    shown,
)
from benchmarks.bench.plot import draw
from benchmarks.bench.report import TITLES, page, summary
from benchmarks.bench.reranker_folder import FLASHRANK_NAME, network_of_graph, write_folders
from benchmarks.bench.results import Results, ResultsError
from benchmarks.bench.setup import Peers, Setting
from benchmarks.bench.worker import SystemFailedError, Worker
from retrieval.evaluation import BeirCollection
from retrieval.models import find_model
from retrieval.rerankers.cross_encoder import OnnxCrossEncoder

DOCUMENTS = {
    "d1": ("Leaks", "A pipe that leaks loses water slowly and wets the wall."),
    "d2": ("Breaks", "A broken pipe floods the cellar within minutes."),
    "d3": ("Cats", "Cats sleep most of the day and hunt at night."),
    "d4": ("Tides", "The moon pulls the sea and makes the tides."),
}
QUERIES = {"q1": "water drips from a pipe", "q2": "why is there a tide", "q3": "what do cats do at night"}
QRELS = {"q1": {"d1": 1}, "q2": {"d4": 1}, "q3": {"d3": 1}}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder in a folder of several things, as BENCH_DATA may be."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "beir" / "scifact"
    (folder / "qrels").mkdir(parents=True)
    rows = ({"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items())
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ({"_id": name, "text": text} for name, text in QUERIES.items())
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    judged = [f"{query}\t{name}\t{grade}" for query, grades in QRELS.items() for name, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return data


def row(what: str, system: str, *values: float, unit: str = "s") -> Row:
    return Row("encode", what, system, unit, values)


# Formulas


@pytest.mark.parametrize(("values", "median"), [((3.0, 1.0, 2.0), 2.0), ((4.0, 1.0, 2.0, 9.0), 3.0), ((7.0,), 7.0)])
def test_the_median_of_the_repeats(values: tuple[float, ...], median: float) -> None:
    assert row("w", "s", *values).median == median


def test_a_ratio_is_that_of_the_medians() -> None:
    slower, faster = row("w", "peer", 9.0, 6.0, 60.0), row("w", "this", 0.5, 0.2, 0.3)
    assert ratio(slower, faster) == pytest.approx(9.0 / 0.3)
    assert ratio(None, faster) is None
    assert ratio(slower, None) is None
    assert ratio(slower, row("w", "this", 0.0)) is None


def test_a_figure_of_two_rows_keeps_both_medians() -> None:
    figure = ratio_figure("twice", row("w", "peer", 8.0), row("w", "this", 0.5), 20, 50)
    assert (figure.value, figure.unit, figure.reached) == (16.0, TIMES, "missed")
    assert figure.out_of == "8.00 s peer / 0.500 s here"


@pytest.mark.parametrize(
    ("value", "better", "reached"),
    [
        (50.0, "higher", "aim"),
        (20.0, "higher", "target"),
        (19.9, "higher", "missed"),
        (None, "higher", "not measured"),
        (20.0, "lower", "aim"),
        (60.0, "lower", "target"),
        (60.1, "lower", "missed"),
    ],
)
def test_how_far_a_figure_came(value: float | None, better: str, reached: str) -> None:
    least, aim = (20, 50) if better == "higher" else (60, 20)
    assert Figure("f", value, "s", least, aim, better).reached == reached  # type: ignore[arg-type]


def test_repeats_are_interleaved() -> None:
    order: list[str] = []

    def run(name: str) -> Taken:
        order.append(name)
        return Taken(float(len(order)), 0.5)

    found = interleaved(2, {"a": lambda: run("a"), "b": lambda: run("b")})
    assert order == ["a", "b", "a", "b"]
    assert found == {"a": (Taken(1.0, 0.5), Taken(3.0, 0.5)), "b": (Taken(2.0, 0.5), Taken(4.0, 0.5))}
    made = Row.of("encode", "w", "a", "s", found["a"], "note")
    assert (made.values, made.cpu, made.median, made.note) == ((1.0, 3.0), (0.5, 0.5), 2.0, "note")


def test_the_quickest_setting_of_a_library_counts() -> None:
    one, other = encode.TRANSFORMERS
    findings = Findings(
        rows=[
            row(encode.TWICE, "this", 0.1, 0.3, 0.2),
            row(encode.COLD, "this", 0.5),
            row(encode.TWICE, one, 10.0),
            row(encode.TWICE, other, 8.0, 6.0),
            row(encode.COSINE, one, 0.999999, unit="cosine"),
        ]
    )
    figures = {figure.name: figure for figure in encode.figures(findings)}
    assert figures["encoding, words known, against sentence-transformers"].value == pytest.approx(7.0 / 0.2)
    assert figures["encoding, words new, against sentence-transformers"].value == pytest.approx(7.0 / 0.5)
    assert figures["encoding, words known, against model2vec"].value is None
    assert figures["smallest cosine with the vectors of the libraries"].value == 0.999999


def test_the_two_stages_are_compared_with_the_quicker_ways_of_torch_too() -> None:
    times = {"this": 100.0, two_stage.SCRIPT: 2000.0, two_stage.HALF: 1600.0}
    findings = Findings(rows=[Row("two_stage", two_stage.WHAT, name, "ms", (value,)) for name, value in times.items()])
    first, budget, _ = two_stage.figures(findings)
    assert (first.name, first.value) == ("two-stage search against the script", 20.0)
    assert first.out_of == f"2,000 ms script, torch, 100 read / 100 ms here; in bfloat16 16.0{TIMES}"
    assert (budget.name, budget.value) == ("two-stage search against the script, budget_ms=240", None)


def test_targets_of_the_large_corpus_hold_for_its_size_only(tmp_path: Path) -> None:
    found = Findings(rows=[Row("ingest", ingest.LARGE, "this", "s", (30.0,))])
    corpus = Corpus("c", [], [], None, tmp_path)
    for scale, value in ((setup.SCALE, 30.0), (6000, None)):
        setting = Setting(corpus, Peers(tmp_path, {}), tmp_path, scale=scale)
        figure = ingest.figures(setting, found)[1]
        assert (figure.name, figure.value) == ("171,000 documents, from the file to searchable", value)


def test_the_smallest_cosine() -> None:
    ours = np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    assert encode.smallest_cosine(ours, np.array([[2.0, 0.0], [0.0, 0.0], [3.0, 4.0]])) == pytest.approx(1.0)
    assert encode.smallest_cosine(ours, np.array([[2.0, 0.0], [0.0, 0.0], [5.0, 0.0]])) == pytest.approx(0.6)
    assert encode.smallest_cosine(ours, np.array([[2.0, 0.0], [1.0, 0.0], [3.0, 4.0]])) == 0.0


def test_growth_is_read_from_its_file(tmp_path: Path) -> None:
    def measured(seconds: float, p50: float) -> dict[str, float]:
        return {
            "passages": 1,
            "searchable_s": seconds - 5,
            "total_s": seconds,
            "peak_anonymous_mb": 1,
            "disk_mb": 1,
            "hybrid_p50_ms": p50,
            "hybrid_p95_ms": 9,
        }

    path = tmp_path / "growth.json"
    path.write_text(json.dumps({"sizes": {"1000000": measured(105.0, 6.0), "100000": measured(10.0, 2.0)}}))
    findings = Findings()
    growth.add(findings, path)
    assert [(figure.value, figure.reached) for figure in findings.figures] == [
        (6.0, "target"),
        (20.0, "missed"),
        (10.5, "target"),
        (3.0, "target"),
    ]
    assert findings.rows[0].system == "this, 100,000 documents"
    growth.add(absent := Findings(), tmp_path / "none.json")
    assert [figure.reached for figure in absent.figures] == ["not measured"] * 4
    assert absent.missing[0].reason.startswith("no none.json")
    path.write_text('{"rows": []}')
    growth.add(broken := Findings(), path)
    assert broken.missing[0].reason == "growth.json is not what `benchmarks.growth` writes: KeyError('sizes')"


# What is written


@pytest.fixture
def findings() -> Findings:
    return Findings(
        rows=[
            Row("encode", encode.TWICE, "this", "s", (0.5, 0.4, 0.6), cpu=(0.8, 0.9, 1.0)),
            row(encode.TWICE, "model2vec", 5.0, 4.0, 6.0),
            Row("two_stage", two_stage.WHAT, "this", "ms", (100.0,)),
        ],
        missing=[Missing("encode", encode.TWICE, "sentence-transformers", "not installed")],
        figures=[ratio_figure("encoding", row("w", "model2vec", 5.0), row("w", "this", 0.5), 12, 30)],
        comparisons=[
            {
                "system": "this",
                "baseline": "script",
                "measure": "nDCG@10",
                "difference": 0.05,
                "interval": [0.01, 0.09],
                "verdict": "better",
            }
        ],
    )


SETTING = {
    "machine": {
        "processor": "AMD EPYC",
        "cores": 2,
        "memory_gb": 23,
        "system": "Linux, x86-64",
        "python": "3.11.7",
        "packages": {"numpy": "2.4.6"},
    },
    "peers": {"model2vec": "0.10.0"},
    "corpus": {"name": "scifact", "documents": 5183, "characters": 7_800_000},
    "models": {"starter-static": "a"},
    "scale": 0,
    "quick": False,
}
MEASURED = {"date": "2026-01-02", "repeats": 3, "load_before": 0.1, "seconds": 61.2, "cores_of_others": 0.05}


def record(findings: Findings, **measured: object) -> dict[str, Any]:
    """What bench.json has, each question's part of the findings in a section of its own."""
    parts = {name: Findings(rows=[one for one in findings.rows if one.question == name]) for name in TITLES}
    parts["encode"] = replace(findings, rows=parts["encode"].rows, comparisons=[])
    parts["quality"].comparisons = findings.comparisons
    sections = {name: {"measured": MEASURED | measured, **part.record()} for name, part in parts.items()}
    return {"setting": SETTING, "sections": sections}


def test_the_page(findings: Findings) -> None:
    text = page(record(findings))
    assert text.index("**Machine.** 2 shared cores, AMD EPYC, 23 GB; Linux, x86-64") < text.index("**Protocol.**")
    assert text.index("**Protocol.**") < text.index("## Figures with a target")
    assert (
        f"| encoding | **10.0{TIMES}** | 12{TIMES} | 30{TIMES} | missed | 5.00 s model2vec / 0.500 s here |"
    ) in text
    assert "*2026-01-02, 3 repeats, 61 s in all; load 0.1 before; other programs kept 0.05 cores busy" in text
    assert "| **this** | 0.500 s (0.400 to 0.600) | 0.900 s |  |" in text
    assert f"| model2vec | 5.00 s (4.00 to 6.00) |  | 10.0{TIMES} |" in text
    assert "- encode the corpus twice over, sentence-transformers: not installed" in text
    assert "Other programs ran" not in text


def test_the_page_of_a_busy_machine_says_so(findings: Findings) -> None:
    assert "**Other programs ran meanwhile** (Encoding, " in page(record(findings, cores_of_others=0.7))
    assert "**Other programs ran meanwhile** (Encoding, " in page(
        record(findings, cores_of_others=None, load_before=3.2)
    )


def test_the_differences_stand_below_the_quality(findings: Findings) -> None:
    findings.rows.append(Row("quality", quality.MEASURE, "this", "", (0.7,)))
    assert "| this | +0.050 | +0.010 to +0.090 | better |" in page(record(findings))


def test_figures_are_readable_on_a_terminal_of_80_columns(findings: Findings) -> None:
    findings.figures.append(Figure("not there", None, "ms", 5, 2, "lower"))
    text = summary(record(findings))
    assert text.splitlines()[1] == f"{'10.0' + TIMES:>16}  encoding"
    assert f"missed (12{TIMES} to 30{TIMES}); 5.00 s model2vec / 0.500 s here" in text
    assert text.splitlines()[-1] == f"{'-':>16}  not there"
    assert max(map(len, text.splitlines())) < 80


def test_findings_survive_their_file(findings: Findings) -> None:
    assert Findings.read(json.loads(json.dumps(findings.record()))) == findings


def test_the_picture_has_a_bar_for_each_system_and_is_the_same_every_time(findings: Findings, tmp_path: Path) -> None:
    findings.rows += [
        Row("growth", what, f"this, {size} documents", unit, (value,))
        for what, unit in growth.COLUMNS.values()
        for size, value in (("100,000", 1.0), ("1,000,000", 9.0))
    ]
    draw(record(findings), tmp_path / "one.svg")
    draw(record(findings), tmp_path / "two.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    for label in (
        "model2vec",
        f"5.00 s  (10.0{TIMES})",
        "0.500 s",
        "1 M",
        "Query to the reranked top ten",
        "peak memory, MB",
    ):
        assert label in drawn
    draw({"setting": SETTING, "sections": {}}, tmp_path / "empty.svg")
    assert "nothing was measured" in (tmp_path / "empty.svg").read_text()


# What is there already


def test_a_question_replaces_only_its_own_answers(findings: Findings, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    first = Results.open(path, SETTING, keep=True)
    first.put("encode", findings, MEASURED)
    first.put("ingest", Findings(notes=["ingest was not finished: no"]), MEASURED)
    again = Results.open(path, SETTING, keep=True)
    assert (again.has("encode"), again.has("ingest"), again.has("growth")) == (True, False, False)
    again.put("ingest", Findings(rows=[row("w", "this", 1.0)]), MEASURED)
    kept = json.loads(path.read_text())["sections"]
    assert Findings.read(kept["encode"]) == findings
    assert [one["system"] for one in kept["ingest"]["rows"]] == ["this"]
    assert Results.open(path, SETTING, keep=False).record["sections"] == {}
    assert [one.name for one in tmp_path.iterdir()] == ["bench.json"]


def test_answers_of_another_setting_are_not_mixed(findings: Findings, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    Results.open(path, SETTING, keep=True).put("encode", findings, MEASURED)
    other = SETTING | {"peers": {"model2vec": "0.11.0"}}
    with pytest.raises(ResultsError, match=r"another peers \(model2vec: 0\.10\.0, now 0\.11\.0\)"):
        Results.open(path, other, keep=True)
    path.write_text("{")
    with pytest.raises(ResultsError, match="not what this program writes"):
        Results.open(path, SETTING, keep=True)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(12345.6, "passages/s", "12,346 passages/s"), (12.34, "ms", "12.3 ms"), (0.01234, "s", "0.012 s"), (0, "", "0")],
)
def test_numbers_show_three_digits(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_the_machine_is_not_named() -> None:
    assert machine.processor("model name\t: AMD EPYC 9999 64-Core Processor\nmodel name\t: x\n") == "AMD EPYC"
    assert machine.processor("model name : Intel(R) Xeon(R) Gold 1\n") == "Intel Xeon"
    described = machine.describe()
    assert os.uname().nodename not in json.dumps(described)
    assert described["cores"] >= 1


def test_what_others_do_is_told_apart_from_what_this_run_does() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, waiting for disks, two kinds of interrupts, stolen: idle and waiting do not count
    line = " ".join(str(number * ticks) for number in (1, 2, 4, 1000, 1000, 8, 16, 32, 0, 0))
    assert machine.busy_seconds(f"cpu  {line}\ncpu0 1 2 3\n") == 63.0
    assert machine.busy_seconds("") is None
    watch = machine.Watch()
    ended = time.process_time() + 0.3
    while time.process_time() < ended:
        pass
    assert machine.own_seconds() - watch.own >= 0.3
    assert set(watch.seen()) == {"load_before", "seconds", "cores_of_others"}


# Where texts come from


def test_a_collection_is_found_in_the_folder_of_all_data(collection: Path) -> None:
    corpus = open_corpus(collection)
    assert (corpus.name, len(corpus.documents), corpus.pairs) == ("scifact", 4, None)
    assert sorted(corpus.queries) == sorted(QUERIES.values())
    assert open_corpus(collection / "beir" / "scifact").documents == corpus.documents
    short = open_corpus(collection, 2)
    assert (len(short.documents), short.collection) == (2, None)


def test_without_a_folder_it_is_the_documentation_of_python() -> None:
    corpus = open_corpus(None, 300)
    assert (corpus.name, len(corpus.documents), corpus.collection) == ("documentation of Python", 300, None)
    assert len(corpus.queries) > 50
    assert corpus == open_corpus(None, 300)


def test_a_folder_without_a_collection_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert f"no corpus.jsonl in {tmp_path}" in capsys.readouterr().err
    assert bench.main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Processes


def test_a_system_that_cannot_start_says_why() -> None:
    with pytest.raises(SystemFailedError, match=r"No module named 'benchmarks\.bench\.nothing'"):
        Worker("benchmarks.bench.nothing", {})


def test_a_call_that_fails_leaves_the_system_running(tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text('["a b", "c"]')
    with Worker(encode.OURS, {"texts": str(texts)}) as worker:
        with pytest.raises(SystemFailedError, match="AttributeError"):
            worker.ask("nothing")
        answer = worker.ask("unequal_tokens")
        assert worker.last is answer
        assert (answer.value, answer.seconds > 0, answer.peak_mb > 10) == (0, True, True)
        worker.ask("save", path=str(tmp_path / "v.npy"))
        assert np.load(tmp_path / "v.npy").shape == (2, 256)


# The cross-encoder of others


def test_the_network_that_is_read_out_of_the_graph_scores_as_the_graph() -> None:
    import torch

    from retrieval.training.reranker.batches import pad_pairs, tokenize_pairs
    from retrieval.training.reranker.network import NetworkShape, score_pairs

    folder = find_model("starter-reranker")
    tensors, shape = network_of_graph(folder / "model.onnx")
    assert shape == {"layers": 6, "heads": 12, "separate": 3}
    texts = [text for _, text in DOCUMENTS.values()]
    reranker = OnnxCrossEncoder(folder)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours, theirs = [], []
    with torch.no_grad():
        parameters = {name: torch.from_numpy(value) for name, value in tensors.items()}
        for query in QUERIES.values():
            ours += reranker.score(query, texts).tolist()
            pairs = tokenize_pairs(tokenizer, [query] * len(texts), texts, max_tokens=64, query_tokens=32)
            inputs = [torch.from_numpy(array) for array in pad_pairs(pairs)]
            theirs += score_pairs(parameters, NetworkShape(**shape), *inputs)[:, 0].tolist()
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    assert np.abs(np.array(ours) - theirs).max() < 0.5


def test_folders_for_the_peers(tmp_path: Path) -> None:
    write_folders(find_model("starter-reranker"), tmp_path)
    config = json.loads((tmp_path / "torch" / "config.json").read_text())
    assert config["tensors"]["embeddings__word_embeddings__weight"] == [30522, 384]
    tokenizer = json.loads((tmp_path / "torch" / "tokenizer_config.json").read_text())
    assert (tokenizer["model_max_length"], tokenizer["pad_token"]) == (512, "[PAD]")
    original = (find_model("starter-reranker") / "model.onnx").read_bytes()
    assert (tmp_path / "fastembed" / "model.onnx").read_bytes() == original
    assert [path.read_bytes() == original for path in (tmp_path / "flashrank" / FLASHRANK_NAME).glob("*.onnx")] == [
        True
    ]


# Quality


def test_rankings_at_both_depths() -> None:
    ids = [f"d{number}" for number in range(100)]
    scores = {"ids": ids, "scores": [0.0] * 50 + [float(number) for number in range(50)]}
    ranked = script_quality.rankings_of(scores)
    assert ranked["100"] == [f"d{number}" for number in range(99, 89, -1)]
    assert ranked["20"] == [f"d{number}" for number in range(10)]  # all alike: the order of the first stage


def test_parts_of_a_run_that_was_stopped(tmp_path: Path) -> None:
    part = tmp_path / "script-abc"
    whole = json.dumps({"query": "q1", "100": ["d1"], "20": ["d2"]})
    script_quality.part_of(part, (0, 2)).write_text(f"{whole}\n{whole[:-4]}")
    script_quality.part_of(part, (1, 2)).write_text(whole.replace("q1", "q2") + "\n")
    assert script_quality.read_parts(part) == {name: {"100": ["d1"], "20": ["d2"]} for name in ("q1", "q2")}


def test_the_order_of_the_queries_is_random_and_always_the_same() -> None:
    names = [f"q{number:03}" for number in range(300)]
    order = script_quality.in_order(names)
    assert order == script_quality.in_order(reversed(names))
    assert sorted(order) == names
    assert abs(np.mean([names.index(name) for name in order[:100]]) - 149.5) < 25  # no end of the list comes first


def test_kept_rankings_of_other_models_are_refused(collection: Path, tmp_path: Path) -> None:
    judged = BeirCollection.open(collection / "beir" / "scifact")
    digests = {"static": "a", "reranker": "b"}
    kept = tmp_path / "kept.json"
    queries = {"q1": {"100": ["d1"], "20": ["d1"]}}
    record = {"fingerprint": script_quality.fingerprint(judged, digests), "queries": queries}
    kept.write_text(json.dumps(record))
    assert script_quality.kept_rankings(judged, digests, kept) == queries
    assert script_quality.kept_rankings(judged, {**digests, "reranker": "c"}, kept) == {}
    assert script_quality.kept_rankings(judged, digests, tmp_path / "none.json") == {}


def test_the_digest_is_of_the_weights_not_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, shape = network_of_graph(find_model("starter-reranker") / "model.onnx")
    digest_as_it_is = setup.model_digests.__wrapped__  # without its cache
    digest = setup.model_digests()

    def digest_of(changed: dict[str, Any]) -> dict[str, str]:
        monkeypatch.setattr(setup, "network_of_graph", lambda _: (changed, shape))
        return digest_as_it_is()

    name = "encoder.layer.3.output.dense.weight"
    rounded = {**tensors, name: tensors[name] * np.float32(1 + 1e-7)}
    assert digest_of(dict(reversed(list(rounded.items())))) == digest
    requantized = {**tensors, name: np.round(tensors[name] * 500) / 500}
    other = digest_of(requantized)
    assert other["starter-reranker"] != digest["starter-reranker"]
    assert other["starter-static"] == digest["starter-static"]


def test_the_difference_to_the_script_is_paired_over_the_queries_that_it_has_answered(collection: Path) -> None:
    judged = BeirCollection.open(collection / "beir" / "scifact")
    right = {query: list(grades) for query, grades in QRELS.items()}
    ours = right | {"q3": ["d2"]}  # wrong, where the script has not answered
    script = {query: ["d2", *right[query]] for query in ("q1", "q2")}
    rows, (compared,) = quality.paired(judged, {"this": ours, "script": script}, "script")
    # A relevant document at place 2 is worth 1 / log2(3) of one at place 1.
    assert {one.system: (round(one.median, 4), one.note) for one in rows} == {
        "this": (1.0, "2 queries"),
        "script": (0.6309, "2 queries"),
    }
    assert compared["queries"] == 2
    assert compared["difference"] == pytest.approx(1 - 0.63093, abs=1e-4)
    assert compared["interval"] == pytest.approx([1 - 0.63093] * 2, abs=1e-4)
    assert quality.paired(judged, {"this": ours}, "script") == ([], [])
    (mean,) = quality.rows_of(judged, {"this": ours}, quality.MEASURE)
    assert (round(mean.median, 4), mean.note) == (0.6667, "3 queries")


def test_the_aim_is_that_the_whole_interval_lies_above_zero() -> None:
    def figure(difference: float, low: float, high: float) -> Figure:
        compared = {"system": "this", "difference": difference, "interval": [low, high], "verdict": "words"}
        (found,) = quality.figures([compared], "73 of 300 queries")
        return found

    reached = [figure(*numbers).reached for numbers in ((0.02, -0.01, 0.05), (0.02, 0.01, 0.03), (-0.01, -0.1, 0.1))]
    assert reached == ["target", "aim", "missed"]
    assert figure(0.02, -0.01, 0.05).out_of == "95 % interval -0.010 to +0.050, words; 73 of 300 queries"
    assert [one.reached for one in quality.figures([], "")] == ["not measured"]


# The whole


@pytest.fixture(scope="module")
def whole(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of all questions has left, without any of the peers."""
    folder = tmp_path_factory.mktemp("whole")
    given = ["--data", str(collection), "--peers", str(folder / "nothing"), "--repeats", "1", "--scale", "0"]
    with pytest.MonkeyPatch.context() as patch:
        for name in set(two_stage.OWN) - {"this"}:
            patch.delitem(two_stage.OWN, name)  # type: ignore[arg-type]  # fewer processes
        assert bench.main([*given, "--out", str(folder / "out"), "--work", str(folder / "work")]) == 0
    assert list((folder / "work").iterdir()) == []
    return folder


def test_a_run_without_peers_invents_nothing(whole: Path) -> None:
    written = json.loads((whole / "out" / "bench.json").read_text())
    assert list(written["sections"]) == [*bench.QUESTIONS, "growth"]
    found = Findings.joined(map(Findings.read, written["sections"].values()))
    assert {one.system.partition(",")[0].partition(" --")[0] for one in found.rows} == {
        "this",
        cold_start.SEARCH,
        "python -c pass",
    }
    assert found.notes == []
    timed = [one for one in found.rows if one.unit in {"s", "ms"}]
    assert timed
    assert all(len(one.values) == 1 and min(one.values) > 0 for one in timed)
    not_installed = {one.system for one in found.missing if one.reason == "not installed"}
    assert not_installed >= {"model2vec", "bm25s", "qdrant-client :memory:", two_stage.SCRIPT}
    against = [one for one in found.figures if one.unit == TIMES]
    assert len(against) > 5
    assert {one.reached for one in against} == {"not measured"}
    # Three documents are right at the top of a corpus of four.
    (mean,) = [one.median for one in found.rows if (one.what, one.system) == (quality.MEASURE, "this")]
    assert mean > 0.8
    text = (whole / "out" / "bench.md").read_text()
    assert "**Peers.** not installed." in text
    assert "encode the corpus twice over, model2vec: not installed" in text
    assert "Query to the reranked top ten" in (whole / "out" / "bench.svg").read_text()


def test_one_question_again_keeps_the_others(
    whole: Path, collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(setting: Setting, findings: Findings) -> None:
        asked.append("encode")
        if len(asked) == 1:
            raise SystemFailedError("no memory")
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setitem(bench.QUESTIONS, "encode", answer)
    given = ["--data", str(collection), "--peers", str(whole / "nothing"), "--repeats", "1", "--scale", "0"]
    given += ["--out", str(whole / "out"), "--work", str(whole / "work")]
    path = whole / "out" / "bench.json"
    before = json.loads(path.read_text())["sections"]
    assert bench.main([*given, "--only", "encode"]) == 1
    assert "encode: no memory" in capsys.readouterr().err
    after = json.loads(path.read_text())["sections"]
    assert after["encode"]["notes"] == ["encode was not finished: no memory"]
    assert all(after[name] == before[name] for name in before if name != "encode")
    assert bench.main([*given, "--resume"]) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    assert json.loads(path.read_text())["sections"] == after
    assert bench.main([*given, "--resume"]) == 0  # only what was not finished is asked
    assert asked == ["encode"] * 3
    assert bench.main([*given, "--only", "encode", "--quick"]) == 2
    assert "results with another corpus (name: scifact, now scifact, first 300)" in capsys.readouterr().err


def test_the_page_is_written_anew_from_the_numbers(
    findings: Findings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["--render", "--out", str(tmp_path)]) == 2
    assert "no results to write anew" in capsys.readouterr().err
    (tmp_path / "bench.json").write_text(json.dumps(record(findings)))
    assert bench.main(["--render", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "bench.md").read_text() == page(record(findings))
    assert (tmp_path / "bench.svg").exists()


def test_an_environment_tells_its_versions(tmp_path: Path) -> None:
    there = tmp_path / "bin" / "python"
    there.parent.mkdir()
    there.symlink_to(sys.executable)
    peers = Peers.open(tmp_path)
    assert peers.installed
    assert not Peers.open(tmp_path / "none").installed
    assert not replace(peers, packages={"torch": "2"}).has("torch", "bm25s")
    there.unlink()
    there.write_text("not a program")
    there.chmod(0o755)
    with pytest.raises(ValueError, match="does not run; erase"):
        Peers.open(tmp_path)
