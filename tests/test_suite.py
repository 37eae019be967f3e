"""Suites of minimal pairs: what is shipped, readers by hand, and what each stage makes of twins."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.suite.baseline import TOLERANCE, read_baseline, save_baseline, undercuts
from pipelines.suite.report import SYSTEMS, SuiteReport
from pipelines.suite.run import run_suite
from retrieval.config import Bm25Config, Config, EncoderConfig, RerankConfig, parse_config
from retrieval.encoders import Bm25Encoder
from retrieval.errors import ConfigError, DocumentError
from retrieval.evaluation.contrast import Order, order_of, summarize_orders, topic_interval
from retrieval.evaluation.minimal_pairs import MinimalPair, Suite, open_suite
from retrieval.evaluation.permutation import permutation_test, shuffled
from retrieval.models import find_model, open_encoder
from retrieval.protocols import Encoder
from retrieval.rerankers import open_reranker

KINDS = ("negation", "exclusion", "role", "quantity", "temporal")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:['\u2019-][a-z0-9]+)*", text.lower())


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    row = list(range(len(other) + 1))
    for number, left in enumerate(one, 1):
        before, row = row, [number]
        for place, right in enumerate(other, 1):
            row.append(min(row[-1] + 1, before[place] + 1, before[place - 1] + (left != right)))
    return row[-1]


class TestShippedSuite:
    suite = open_suite("negation")

    def test_it_has_five_kinds_and_starts_with_the_pipe(self) -> None:
        assert self.suite.kinds == KINDS
        assert min(Counter(pair.kind for pair in self.suite.pairs).values()) >= 60
        assert len(self.suite.pairs) >= 320
        assert len({pair.domain for pair in self.suite.pairs}) >= 10
        assert self.suite.pairs[0].queries == ("how to fix a broken pipe", "pipe not broken but leaking")

    def test_nothing_appears_twice(self) -> None:
        texts = [" ".join(words(text)) for pair in self.suite.pairs for text in pair.texts]
        queries = [query for pair in self.suite.pairs for query in pair.queries]
        assert len(set(texts)) == len(texts) == 2 * len(self.suite.pairs)
        assert len({query.lower() for query in queries if query}) == len(queries) == len(texts)

    def test_twins_differ_in_a_small_edit(self) -> None:
        for pair in self.suite.pairs:
            one, other = (words(text) for text in pair.texts)
            shared = sum((Counter(one) & Counter(other)).values())
            assert shared / max(len(one), len(other)) >= 0.7, pair.id
            assert 1 <= edit_distance(one, other) <= 14, pair.id

    def test_texts_are_one_to_three_sentences(self) -> None:
        for pair in self.suite.pairs:
            for text in pair.texts:
                assert 15 <= len(words(text)) <= 45, pair.id
                assert 1 <= len(re.findall(r"[.?!](?:\s|$)", text)) <= 3, pair.id
                assert re.fullmatch(r"[A-Z](?!.*  ).*\.", text), pair.id

    def test_no_simple_rule_gives_the_answer_away(self) -> None:
        """Rules that look at single words, or at no query at all, stay near guessing, a tie counting half."""
        cues = {"not", "no", "never", "without", "cannot", "neither", "none", "except", "excluding", "apart", "nothing"}

        def shared(query: list[str], text: list[str]) -> float:
            return len(set(query) & set(text))

        def same_polarity(query: list[str], text: list[str]) -> float:
            return (1 if cues & set(query) else -1) * sum(word in cues for word in text)

        def longer(query: list[str], text: list[str]) -> float:
            return len(text)

        def first_in_file(query: list[str], text: list[str]) -> float:
            return 0

        for rule in (shared, same_polarity, longer, first_in_file):
            for kind in KINDS:
                points = []
                for pair in self.suite.pairs:
                    for side, query in enumerate(pair.queries):
                        if pair.kind != kind or query is None:
                            continue
                        mine, other = (rule(words(query), words(pair.texts[at])) for at in (side, 1 - side))
                        points.append(0.5 if mine == other else float(mine > other))
                assert 0.35 < np.mean(points) < 0.65, (rule.__name__, kind)

    def test_the_order_in_the_file_says_nothing(self) -> None:
        lengths = [[len(words(text)) for text in pair.texts] for pair in self.suite.pairs]
        longer = [one > other for one, other in lengths if one != other]
        assert len(longer) > 50
        assert 0.3 < np.mean(longer) < 0.7
        negated = [pair.negated for pair in self.suite.pairs if pair.negated and len(set(pair.negated)) == 2]
        assert 0.3 < np.mean([first for first, _ in negated]) < 0.7

    def test_its_first_line_says_that_it_is_a_test_set(self) -> None:
        path = Path(__file__).parents[1] / "retrieval" / "evaluation" / "data" / "negation.jsonl"
        with path.open(encoding="utf-8") as lines:
            assert "do not train or tune" in json.loads(next(lines))["note"]

    def test_the_digest_follows_the_content(self) -> None:
        assert self.suite.digest == open_suite("negation").digest
        changed = replace(self.suite.pairs[0], texts=("a", "b"))
        assert replace(self.suite, pairs=(changed, *self.suite.pairs[1:])).digest != self.suite.digest

    def test_first_takes_so_many_of_each_kind(self) -> None:
        assert [pair.id for pair in self.suite.first(1).pairs] == [f"{kind}-001" for kind in KINDS]


def put(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


NEVIR = {"id": "7-2", "q1": "wet?", "q2": "dry?", "doc1": "It is wet.", "doc2": "It is not wet."}


class TestReaders:
    def test_nevir_in_every_file_format(self, tmp_path: Path) -> None:
        as_csv = ',WorkerId,q1,q2,doc1,doc2,id\n0,5,wet?,dry?,"It is wet.",It is not wet.,7-2\n'
        (tmp_path / "a.csv").write_text(as_csv, encoding="utf-8")
        (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf" + as_csv.replace(",", "\t").encode())
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(NEVIR).encode() + b"\n\n"))
        put(tmp_path / "a.json", [NEVIR])
        for path in tmp_path.iterdir():
            (pair,) = open_suite(path).pairs
            assert (pair.kind, pair.topic) == ("negation", "7")
            assert pair.texts == ("It is wet.", "It is not wet.")
            assert pair.queries == ("wet?", "dry?")
            assert pair.negated is None

    def test_excluir_has_one_query_and_the_excluded_text_comes_first(self, tmp_path: Path) -> None:
        put(tmp_path / "corpus.json", ["apples and pears", "only apples", "plums"])
        row = {"question0": "fruit", "RQ_rewrite": "fruit without pears", "corpus_sub_index": [0, 1]}
        queries = put(tmp_path / "test_manual_final.json", [row, {"ExcluQ": "no plums", "index": [2, 1]}])
        for place in (tmp_path, queries):
            first, second = open_suite(place).pairs
            assert first.kind == "exclusion"
            assert first.texts == ("only apples", "apples and pears")
            assert first.queries == ("fruit without pears", None)
            assert second.texts == ("only apples", "plums")

    def test_condaqa_couples_opposite_questions_over_two_edits(self, tmp_path: Path) -> None:
        row = {
            "question": "Wet?",
            "doc1": "Is wet.",
            "doc2": "Is dry.",
            "label1": "YES",
            "label2": "NO",
            "passage_id": 3,
        }
        dry = {**row, "question": "Dry?", "label1": "NO", "label2": "YES"}
        unsure = {**row, "question": "Cold?", "label1": "DON'T KNOW"}
        (pair,) = open_suite(put(tmp_path / "c.json", [row, dry, unsure])).pairs
        assert (pair.texts, pair.queries, pair.topic) == (("Is dry.", "Is wet."), ("Dry?", "Wet?"), "3")

    def test_condaqa_as_published_compares_the_edits_of_a_passage(self, tmp_path: Path) -> None:
        edits = [("Is wet.", "YES"), ("Is dry.", "NO"), ("Was dry.", "NO"), ("Was.", "DON'T KNOW")]
        rows = [{"sentence1": text, "sentence2": "Wet?", "label": label, "PassageID": 4} for text, label in edits]
        other = {"sentence1": "Is hot.", "sentence2": "Wet?", "label": "NO", "PassageID": 5}
        pairs = open_suite(put(tmp_path / "c.json", [*rows, other])).pairs
        assert [pair.texts for pair in pairs] == [("Is dry.", "Is wet."), ("Is wet.", "Was dry.")]
        assert [pair.queries for pair in pairs] == [(None, "Wet?"), ("Wet?", None)]

    def test_claims_with_evidence_for_and_against(self, tmp_path: Path) -> None:
        rows = [
            {"claim": "It rains.", "evidence": "Rain falls.", "label": "SUPPORTS"},
            {"claim": "It rains.", "evidence": "No rain falls.", "label": "REFUTES"},
        ]
        (pair,) = open_suite(put(tmp_path / "f.json", rows)).pairs
        assert (pair.kind, pair.texts) == ("claim", ("No rain falls.", "Rain falls."))
        assert pair.queries == (None, "It rains.")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "no rows"),
            (b"\x00\xff\xfe\x80", "neither JSON, JSON lines, CSV nor TSV"),
            (b"\x1f\x8bbroken", "neither JSON"),
            (b"[" * 100_000, "neither JSON"),
            (b'{"q1": ', "neither JSON"),
            (b"[1, 2]", r"\[0\] is a int, not an object"),
            (b"a,b\n1,2\n", "columns a, b, which is no layout"),
            (b"q1,q2,doc1,doc2\n1,2,3,4,5\n", "more cells"),
            (b"q1,q2,doc1,doc2\nx,,y,z\n", "q1 or q2 is empty"),
            (b"q1,q2,doc1,doc2\nx,y,z,z\n", "doc1 and doc2 are equal"),
            (b"q1,q2,doc1,doc2\nx,y\n", "doc1 is 'None', not a text"),
            (b'[{"ExcluQ": "x", "index": [0, 1]}]', r"needs corpus\.json beside it"),
            (b'{"suite": "x"}', "holds no pair"),
            (b'{"id": "a", "kind": "k", "texts": ["x"], "queries": ["y", "z"]}', "texts is a list of two texts"),
            (b'{"id": "a", "kind": "k", "texts": ["x", "x"], "queries": ["y", "z"]}', "'a' are empty or equal"),
            (b'{"id": "a", "kind": "k", "texts": ["x", "w"], "queries": ["y", " "]}', "'a' has an empty query"),
            (
                b'{"id": "a", "kind": "k", "texts": ["x", "w"], "queries": ["y", "z"], "negated": 1}',
                "negated is a list",
            ),
            (b'{"id": 1, "kind": "k", "texts": ["x", "w"], "queries": ["y", "z"]}', "id is 1, not a text"),
            (b'{"id": "a", "kind": "k", "texts": ["x", "w"], "queries": ["y", "z"]}\n' * 2, "'a' appears twice"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "pairs.data"
        path.write_bytes(content)
        with pytest.raises(DocumentError, match=message):
            open_suite(path)

    def test_places_outside_the_corpus_and_missing_files(self, tmp_path: Path) -> None:
        put(tmp_path / "corpus.json", ["one", "two"])
        for places in ([0, 2], [-1, 0], [True, 0], [0], "01"):
            put(tmp_path / "test_manual_final.json", [{"RQ_rewrite": "x", "corpus_sub_index": places}])
            with pytest.raises(DocumentError, match="not two places in the 2 texts"):
                open_suite(tmp_path)
        (tmp_path / "corpus.json").write_text('{"0": "one"}', encoding="utf-8")
        with pytest.raises(DocumentError, match="not a list of texts"):
            open_suite(tmp_path)
        (tmp_path / "test_manual_final.json").unlink()
        with pytest.raises(DocumentError, match=r"folder without test_manual_final\.json"):
            open_suite(tmp_path)
        with pytest.raises(DocumentError, match="neither a file nor one of negation"):
            open_suite("polarity")


@pytest.mark.parametrize(
    ("answer", "other", "order"),
    [
        (2.0, 1.0, "right"),
        (1.0, 2.0, "wrong"),
        (0.5, 0.5, "tie"),
        (0.5, 0.500001, "tie"),
        (20.0, 20.0001, "tie"),
        (0.5, 0.501, "wrong"),
        (-3.0, None, "right"),
        (None, 3.0, "wrong"),
        (None, None, "missing"),
    ],
)
def test_order_of_two_scores(answer: float | None, other: float | None, order: Order) -> None:
    assert order_of(answer, other) == order


def test_shares_and_couples_by_hand() -> None:
    result = summarize_orders([True, True, True, False], [(0, 1), (2, 3)], ["a", "a", "b", "b"])
    assert (result.pairs, result.accuracy, result.both, result.both_accuracy) == (4, 0.75, 2, 0.5)
    # Two topics: both resampled the same way give the ends.
    assert result.accuracy_interval == (0.5, 1.0)
    assert result.both_interval == (0.0, 1.0)
    assert topic_interval([-1.0, 0.0, 0.0, 0.0], ["a", "b", "c", "d"]) == (-0.75, 0.0)


PAIRS = (
    # The same words in two orders.
    MinimalPair(
        "role-1",
        "role",
        ("The bank sued the builder over a wet cellar.", "The builder sued the bank over a wet cellar."),
        ("suit brought by the bank against the builder", "suit brought by the builder against the bank"),
        topic="role-1",
    ),
    # A word of each query stands in its own text only.
    MinimalPair(
        "drink-1",
        "drink",
        ("The guests drank coffee on the terrace.", "The guests drank lemonade on the terrace."),
        ("guests with coffee", "guests with lemonade"),
        topic="drink-1",
    ),
)


@pytest.fixture(scope="module")
def report() -> SuiteReport:
    return run_suite(Suite("tiny", PAIRS))


def encoder_and_score() -> tuple[Encoder, Callable[..., np.ndarray]]:
    config = RerankConfig(threads=1)
    return open_encoder(EncoderConfig()), open_reranker(config, find_model(config.model)).score


class TestPermutation:
    asked = tuple((str(pair.queries[0]), pair.texts[0]) for pair in open_suite("negation").first(4).pairs)

    def test_the_first_stage_cannot_see_order_and_the_second_can(self) -> None:
        encoder, score = encoder_and_score()
        result = permutation_test(self.asked, encoder, Bm25Encoder(Bm25Config()), score)
        assert result.texts == 20
        assert result.dense_change < 1e-6
        assert result.sparse_changed == 0
        assert result.logits_changed > 0.9
        assert result.logit_change > 0.01

    def test_an_encoder_that_reads_the_beginning_only_is_found_out(self) -> None:
        encoder, score = encoder_and_score()

        class Beginning:
            def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
                return encoder.encode_documents([" ".join(text.split()[:5]) for text in texts])

        result = permutation_test(self.asked, Beginning(), Bm25Encoder(Bm25Config()), score)  # type: ignore[arg-type]
        assert result.dense_change > 0.05

    def test_shuffling_keeps_the_words_and_changes_the_order(self) -> None:
        for seed in range(20):
            other = shuffled("not wet", random.Random(seed))
            assert other == "wet not"
        encoder, score = encoder_and_score()
        with pytest.raises(ValueError, match="nothing to shuffle"):
            permutation_test([("q", "wet wet wet")], encoder, Bm25Encoder(Bm25Config()), score)


class TestRun:
    def test_each_stage_does_what_paper_says(self, report: SuiteReport) -> None:
        role, drink, together = report.kinds
        assert [kind.kind for kind in report.kinds] == ["role", "drink", "all"]
        assert (together.pairs, together.queries) == (2, 4)
        assert (report.texts, report.distractors, report.passages) == (4, 0, 4)
        assert report.names == ("role-1/1", "role-1/2", "drink-1/1", "drink-1/2")
        for system in ("BM25", "static", "hybrid"):
            assert report.orders[system] == ("tie", "tie", "right", "right")
            assert (role.ties[system], role.systems[system].accuracy) == (1.0, 0.0)
            assert drink.systems[system].both_accuracy == 1.0
            assert (together.systems[system].accuracy, together.systems[system].both) == (0.5, 2)
            assert together.systems[system].accuracy_interval == (0.0, 1.0)
        assert tuple(report.orders) == SYSTEMS
        # The cross-encoder sees order: no tie.
        assert together.ties["cross-encoder"] == together.ties["two-stage"] == 0.0
        assert together.kept == {"BM25": 1.0, "static": 1.0, "hybrid": 1.0}
        assert together.read == 1.0
        assert report.chance == {"right": 0.5, "both": 0.25}

    def test_what_the_first_stage_loses_is_counted(self) -> None:
        config = parse_config({"first_stage": {"candidates": 1}, "rerank": {"depth": 1}})
        report = run_suite(Suite("tiny", PAIRS), config)
        assert report.kept == (False,) * 4
        assert report.kinds[-1].kept["hybrid"] == report.kinds[-1].read == 0.0
        # What was found stands above what was not.
        assert report.orders["hybrid"][2:] == ("right", "right")
        assert sorted(report.orders["two-stage"][:2]) == ["right", "wrong"]

    def test_other_documents_come_from_a_collection_and_an_index(self, tmp_path: Path) -> None:
        collection = tmp_path / "beir"
        collection.mkdir()
        near = [{"_id": f"n{number}", "text": f"guests with coffee, table {number}"} for number in range(3)]
        (collection / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in near), encoding="utf-8")
        index = tmp_path / "index"
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(
                [("mine", "The guests with coffee and with lemonade."), ("other", "Tides follow the moon.")]
            )
            # As adapting the index would have chosen it.
            pipeline._weigh(0.9)
        before = sorted((path, path.read_bytes()) for path in index.rglob("manifest.json"))
        config = parse_config({"first_stage": {"candidates": 4}})
        report = run_suite(Suite("tiny", PAIRS), config, index=index, distractors=collection)
        assert (report.texts, report.distractors) == (4, 5)
        assert report.source == f"{collection}, {index}"
        assert json.loads(json.dumps(report.config))["first_stage"]["dense_weight"] == 0.9
        # Four nearer documents take the places of the twins.
        assert report.kept[2] is False
        assert report.orders["BM25"][2] in ("missing", "right")
        assert sorted((path, path.read_bytes()) for path in index.rglob("manifest.json")) == before
        with pytest.raises(DocumentError, match="no BEIR collection"):
            run_suite(Suite("tiny", PAIRS), distractors=tmp_path)

    def test_a_text_that_cannot_be_found_is_no_silent_loss(self) -> None:
        pair = MinimalPair("a", "k", ("\u2063", "A pipe."), ("pipe", "no pipe"), topic="a")
        with pytest.raises(ValueError, match="cannot be indexed"):
            run_suite(Suite("tiny", (pair,)), Config())


def worse(report: SuiteReport, system: str, places: Sequence[int]) -> SuiteReport:
    orders = list(report.orders[system])
    for place in places:
        orders[place] = "wrong"
    return replace(report, orders={**report.orders, system: tuple(orders)})


def large(report: SuiteReport, count: int) -> SuiteReport:
    """A report over so many right queries, two of each pair."""
    names = tuple(f"role-{number // 2}/{number % 2 + 1}" for number in range(count))
    return replace(
        report,
        names=names,
        kind_of=("role",) * count,
        topics=tuple(name.partition("/")[0] for name in names),
        kept=(True,) * count,
        orders=dict.fromkeys(SYSTEMS, ("right",) * count),
        kinds=(replace(report.kinds[-1], kind="all"),),
    )


class TestBaseline:
    def test_the_same_result_is_not_worse(self, report: SuiteReport, tmp_path: Path) -> None:
        path = tmp_path / "base.json"
        save_baseline(path, report)
        baseline = read_baseline(path)
        assert baseline.orders == report.orders
        assert (baseline.names, baseline.kept, baseline.tolerance) == (report.names, report.kept, TOLERANCE)
        assert undercuts(baseline, report) == ()
        assert [place.name for place in tmp_path.iterdir()] == ["base.json"]

    def test_a_loss_counts_beyond_the_tolerance_and_beyond_chance(self, report: SuiteReport, tmp_path: Path) -> None:
        path = tmp_path / "base.json"
        good = large(report, 200)
        save_baseline(path, good, tolerance=0.03)
        baseline = read_baseline(path)
        # 5 of 200 queries are 2.5 %; but pairs lost are 5 of 100.
        spread = [2 * number for number in range(5)]
        assert [str(loss) for loss in undercuts(baseline, worse(good, "two-stage", spread))] == [
            "two-stage, all: 0.950 of pairs with both queries right instead of 1.000"
        ]
        # The two queries of a pair together: 2.5 % of the pairs too.
        assert undercuts(baseline, worse(good, "two-stage", [0, 1, 2, 3, 4])) == ()
        losses = undercuts(baseline, worse(good, "BM25", range(20)))
        assert {(loss.system, loss.measure, round(loss.now, 3)) for loss in losses} == {
            ("BM25", "right", 0.9),
            ("BM25", "both", 0.9),
        }
        assert all(loss.interval[0] < loss.interval[1] < 0 for loss in losses)
        # One query of ten is 10 %, and an interval that reaches 0.
        few = large(report, 10)
        save_baseline(path, few)
        assert undercuts(read_baseline(path), worse(few, "BM25", [0])) == ()
        (kept,) = undercuts(baseline, replace(good, kept=(False,) * 20 + (True,) * 180))
        assert (kept.system, kept.measure, kept.now) == ("first stage", "kept", 0.9)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: "", "is not JSON"),
            (lambda text: "[]", "not a baseline"),
            (lambda text: text.replace('"kept": "1', '"kept": "x'), "damaged"),
            (lambda text: text.replace('"kept": "1', '"kept": "'), "damaged .the numbers"),
            (lambda text: text.replace('"tolerance": 0.02', '"tolerance": NaN'), "tolerance is from 0 to 1"),
            (lambda text: text.replace('"names"', '"titles"'), "damaged"),
        ],
    )
    def test_a_baseline_that_cannot_be_used_is_named(
        self, report: SuiteReport, tmp_path: Path, change: Callable[[str], str], message: str
    ) -> None:
        path = tmp_path / "base.json"
        save_baseline(path, report)
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            read_baseline(path)

    def test_another_suite_cannot_be_compared(self, report: SuiteReport, tmp_path: Path) -> None:
        save_baseline(tmp_path / "base.json", report)
        with pytest.raises(ConfigError, match="make a new one with --save-baseline"):
            undercuts(read_baseline(tmp_path / "base.json"), replace(report, digest="0" * 12))
        with pytest.raises(ConfigError, match="cannot read the baseline"):
            read_baseline(tmp_path / "other.json")


class TestCommand:
    def invoke(self, *arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "80"})
        return done.exit_code, done.stdout, done.stderr

    @pytest.fixture
    def pairs(self, tmp_path: Path) -> Path:
        rows = [{"id": p.id, "kind": p.kind, "texts": p.texts, "queries": p.queries} for p in PAIRS]
        return put(tmp_path / "pairs.json", rows)

    def test_table_document_and_exit_codes(self, pairs: Path, tmp_path: Path) -> None:
        base = tmp_path / "base.json"
        code, out, _ = self.invoke("--suite", pairs, "--save-baseline", base)
        assert code == 0
        assert max(map(len, out.splitlines())) <= 80
        assert "2 pairs of twins, 4 queries" in out
        rows = [line.split() for line in out.splitlines() if line.startswith("BM25 ")]
        assert rows[1] == ["BM25", "0", "100", "50", "0-100"]

        code, out, err = self.invoke("--suite", pairs, "--baseline", base)
        assert (code, "not worse than" in err) == (0, True)

        # A baseline in which BM25 had everything right.
        record = json.loads(base.read_text(encoding="utf-8"))
        record["orders"]["static"] = "rrrr"
        # An interval over one topic is a point.
        base.write_text(json.dumps(record), encoding="utf-8")
        code, out, err = self.invoke("--suite", pairs, "--baseline", base, "--json")
        assert code == 1
        (sentence,) = err.strip().splitlines()
        assert "tolerance: static, role: 0.000 of queries right instead of 1.000" in sentence
        document = json.loads(out)
        assert document["undercuts"][0]["now"] == 0.0
        assert document["kinds"][-1]["systems"]["BM25"]["accuracy"] == 0.5
        assert document["permutation"]["texts"] == 4

        code, _, err = self.invoke("--suite", pairs, "--limit", 1, "--baseline", put(base, {}))
        assert (code, "not a baseline" in err) == (2, True)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            ([], 2, "--suite negation"),
            (["--baseline", "b.json"], 2, "need --suite"),
            (["--suite", "negation", "--split", "dev"], 2, "no meaning with --suite"),
            (["--suite", "polarity"], 1, "there is no suite 'polarity'"),
            (["--suite", "negation", "--baseline", "nowhere.json"], 2, "cannot read the baseline nowhere.json"),
            (["--suite", "negation", "--save-baseline", "nowhere/b.json"], 2, "make the folder nowhere first"),
            (["--suite", "negation", "--index", "nowhere"], 1, "there is no index in"),
        ],
    )
    def test_mistakes(
        self, arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        exit_code, _, err = self.invoke(*arguments)
        assert exit_code == code
        assert message in " ".join(re.sub(r"[\u2500-\u257f|]", " ", err).split())
        assert list(tmp_path.iterdir()) == []
