"""Near-equal documents and passages: found by vectors, decided by words, never merged over a negation or a number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.corpus_views.grouping import group_pairs
from pipelines.corpus_views.overlap import Overlap, Wording, check_threshold, compare, mark_of, words_of
from pipelines.corpus_views.texts import joined
from retrieval.config import Config, MemoryStoreConfig
from retrieval.datatypes import Document
from retrieval.errors import ConfigError

BOILER = (
    "The boiler in the cellar heats the water for the whole house and for the greenhouse behind it. Check the gauge of "
    "the pressure every morning before the pump is switched on, and let air out of the radiators in autumn."
)
GARDEN = (
    "Tomatoes want sun, warmth and a place that is sheltered from the rain. Water them at the roots in the evening, "
    "tie the stems to a stake, and pinch out the shoots that grow between stem and leaf."
)
DOCUMENTS = [
    Document("boiler", BOILER),
    Document("boiler-copy", BOILER.upper().replace(". ", " .\n\n")),
    Document("boiler-edited", BOILER.replace("in autumn", "in late autumn")),
    Document("boiler-negated", BOILER.replace("is switched on", "is not switched on")),
    Document("garden", GARDEN),
    Document("pipe", "the pipe is broken"),
    Document("pipe-negated", "the pipe is not broken"),
    Document("empty-ish", "zebra crossing"),
]


def memory() -> Config:
    return Config(store=MemoryStoreConfig())


@pytest.fixture
def pipeline() -> Iterator[TwoStagePipeline]:
    with TwoStagePipeline.open(config=memory()) as opened:
        opened.ingest(DOCUMENTS)
        yield opened


def overlap(first: str, second: str, threshold: float = 0.7) -> Overlap:
    return compare(Wording.of(first), Wording.of(second), threshold)


def test_words_are_those_that_people_count() -> None:
    assert words_of("Don't pay 6,000 or 1.5 -- \u65e5\u672c!") == [
        "don't",
        "pay",
        "6000",
        "or",
        "1.5",
        "\u65e5",
        "\u672c",
    ]
    assert mark_of("A  b\nC.") == mark_of("a, B; c")
    assert mark_of("a b") != mark_of("ab")
    assert mark_of("\ud800 x") == mark_of("\ud800 x")


def test_the_share_is_that_of_word_triples() -> None:
    # abc bcd cde | abc bcd cdx: two of four
    assert overlap("a b c d e", "a b c d x").share == 0.5
    assert overlap("a b c d e", "a b c d e x", threshold=0.5).kind == "near"
    assert overlap("a b c d e", "a b c d x", threshold=0.5).kind == "altered"
    assert overlap("a b c d e", "a b c d x", threshold=0.51).kind == "different"
    assert overlap("A b, c", "a B c").kind == "exact"
    assert overlap("", "").kind == "exact"
    assert overlap("", "a").kind == "different"


@pytest.mark.parametrize(
    ("first", "second", "turning"),
    [
        ("the pipe is broken", "the pipe is not broken", ("not",)),
        ("the pump runs at 20 bar in all seasons", "the pump runs at 30 bar in all seasons", ("20", "30")),
        ("maple syrup urine disease type 1A is rare", "maple syrup urine disease type 1B is rare", ("1a", "1b")),
        ("factors of small cell cancer", "factors of non-small cell cancer", ("non",)),
        ("as assertTrue(a < b), with a nicer message", "as assertTrue(a >= b), with a nicer message", ("<", ">=")),
        ("it does work well", "it doesn't work well", ()),
        ("model v2 is out", "model v3 is out", ("v2", "v3")),
    ],
)
def test_a_negation_or_a_number_turns_the_meaning(first: str, second: str, turning: tuple[str, ...]) -> None:
    found = overlap(first, second)
    assert found.kind == ("altered" if turning else "different")
    assert set(turning) <= set(found.turning)


def test_a_word_in_the_place_of_another_is_another_text_and_a_slip_is_not() -> None:
    template = "log a message with severity {} on the root logger and add a console handler if there is none at all {}"
    debug, critical = template.format("debug", ""), template.format("critical", "")
    found = overlap(debug, critical)
    assert (found.kind, found.turning) == ("altered", ("debug", "critical"))
    for slip in ("messag", "mesasge", "messsage", "massage"):
        assert overlap(debug, debug.replace("message", slip)).kind == "near"
    assert overlap(debug, debug.replace("add", "ad")).kind == "altered"  # of short words every slip is a word
    assert overlap(debug, template.format("debug", "as said above")).kind == "near"
    assert overlap(debug, debug.replace("a console", "the console")).kind == "near"
    assert (
        overlap(
            "prices increase from year to year in most of the towns",
            "prices decrease from year to year in most of the towns",
            0.4,
        ).kind
        == "altered"
    )


def test_a_thousand_is_written_in_two_ways() -> None:
    text = "the fund holds {} shares of the company at the end of the year and will not sell them"
    assert overlap(text.format("6,000"), text.format("6000")).kind == "exact"


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan"), True])
def test_a_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        check_threshold(threshold)


def test_a_text_is_put_together_from_passages_that_overlap() -> None:
    assert joined([(0, "one two"), (4, "two three"), (14, "four")]) == "one two three\nfour"


def test_chains_are_cut() -> None:
    near, far = Overlap("near", 0.8), Overlap("different", 0.4)
    judged = {("a", "b"): near, ("b", "c"): near}
    groups = group_pairs(["a", "b", "c", "b2"], [("b", "b2")], judged, lambda one, other: far)
    assert groups == {"a": [("b", near), ("b2", near)]}


def test_documents_are_grouped_and_turned_ones_told_apart(pipeline: TwoStagePipeline) -> None:
    report = pipeline.duplicates()
    assert (report.compared, report.duplicates, report.threshold) == (8, 2, 0.7)
    (group,) = report.groups
    assert group.kept.document_id == "boiler"
    assert [(one.document_id, one.kind) for one in group.others] == [
        ("boiler-copy", "exact"),
        ("boiler-edited", "near"),
    ]
    assert group.others[0].share == 1.0
    assert group.others[1].only_here == ("late",)
    altered = {(pair.kept.document_id, pair.others[0].document_id): pair.others[0].turning for pair in report.altered}
    assert altered[("boiler", "boiler-negated")] == ("not",)
    assert altered[("pipe", "pipe-negated")] == ("not",)
    assert report.checked >= 3


def test_a_higher_threshold_and_a_filter_find_less(pipeline: TwoStagePipeline) -> None:
    strict = pipeline.duplicates(threshold=1.0)
    assert [[one.document_id for one in group.others] for group in strict.groups] == [["boiler-copy"]]
    where = {"must_not": [{"key": "document_id", "match": {"value": "boiler-copy"}}]}
    assert [len(group.others) for group in pipeline.duplicates(where=where).groups] == [1]


def test_passages_are_compared_with_all_or_in_their_document() -> None:
    config = Config.model_validate({"store": {"kind": "memory"}, "chunking": {"max_tokens": 64, "overlap_tokens": 0}})
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest([Document("twice", f"{BOILER}\n\n{GARDEN}\n\n{BOILER}"), Document("once", GARDEN)])
        inside = pipeline.duplicates(of="passage", within="document")
        anywhere = pipeline.duplicates(of="passage")
        documents = pipeline.duplicates()
    assert [(group.kept.document_id, group.kept.index) for group in inside.groups] == [("twice", 0)]
    assert [(one.document_id, one.index) for one in inside.groups[0].others] == [("twice", 2)]
    assert {(group.kept.document_id, len(group.others)) for group in anywhere.groups} == {("twice", 1), ("once", 1)}
    assert documents.groups == ()


def test_many_copies_are_one_group() -> None:
    with TwoStagePipeline.open(config=memory()) as pipeline:
        pipeline.ingest([Document(f"copy-{number:03}", BOILER + " ok" * (number % 3)) for number in range(90)])
        report = pipeline.duplicates()
    assert [len(group.others) for group in report.groups] == [89]
    assert report.groups[0].kept.document_id == "copy-000"


def test_an_empty_index_has_none() -> None:
    with TwoStagePipeline.open(config=memory()) as pipeline:
        assert pipeline.duplicates().groups == ()
        with pytest.raises(ValueError, match="compares passages"):
            pipeline.duplicates(within="document")


def test_ingest_reports_or_skips_them() -> None:
    with TwoStagePipeline.open(config=memory()) as pipeline:
        assert pipeline.ingest(DOCUMENTS[:1], duplicates="skip").duplicate_count == 0
        told = pipeline.ingest(DOCUMENTS[1:2], duplicates="report")
        assert (told.added, told.rejected_count) == (1, 0)
        assert [(one.source, one.of, one.kind, one.skipped) for one in told.duplicates] == [
            ("boiler-copy", "boiler", "exact", False)
        ]
        skipped = pipeline.ingest([*DOCUMENTS[2:], Document("garden-2", GARDEN)], duplicates="skip")
        assert [(one.source, one.reason) for one in skipped.rejected] == [
            ("boiler-edited", skipped.rejected[0].reason),
            ("garden-2", "duplicate: the same words as 'garden'"),
        ]
        assert "near-equal" in skipped.rejected[0].reason
        assert "'boiler" in skipped.rejected[0].reason
        assert skipped.duplicate_count == 2
        # What a negation turns around came in.
        assert skipped.added == 5
        assert pipeline.search("pipe not broken", rerank=False)[0].document_id == "pipe-negated"
        again = pipeline.ingest([*DOCUMENTS[2:], Document("garden-2", GARDEN)], duplicates="skip")
        assert (again.added, again.unchanged, again.duplicate_count) == (0, 5, 2)


def test_a_changed_document_is_never_left_out() -> None:
    with TwoStagePipeline.open(config=memory()) as pipeline:
        pipeline.ingest([Document("one", BOILER), Document("two", GARDEN)])
        report = pipeline.ingest([Document("two", BOILER)], duplicates="skip")
        assert (report.changed, report.rejected_count) == (1, 0)
        assert [(one.of, one.skipped) for one in report.duplicates] == [("one", False)]


def test_bad_settings_are_refused() -> None:
    config = Config.model_validate({"store": {"kind": "memory"}, "documents": {"duplicates": "report"}})
    with TwoStagePipeline.open(config=config) as pipeline:
        with pytest.raises(ConfigError, match=r"documents\.duplicates"):
            pipeline.ingest_distributed("x", address="local")
        with pytest.raises(ValueError, match="'off'"):
            pipeline.ingest([], duplicates="off")  # type: ignore[arg-type]


def test_the_command_line(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    rows = [{"id": one.id, "text": one.text} for one in DOCUMENTS]
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    index = str(tmp_path / "index")
    runner = CliRunner()
    done = runner.invoke(app, ["ingest", str(source), "--index", index, "--duplicates", "report"])
    assert done.exit_code == 0
    assert "duplicates  2" in done.stdout
    assert "the same words as boiler" in " ".join(done.stdout.split())
    shown = runner.invoke(app, ["duplicates", "--index", index])
    assert shown.exit_code == 0
    assert "group 1: 3 near-equal documents" in shown.stdout
    assert "in no group" in shown.stdout
    record = json.loads(runner.invoke(app, ["duplicates", "--index", index, "--json"]).stdout)
    assert record["groups"][0]["others"][1]["only_here"] == ["late"]
    assert runner.invoke(app, ["duplicates", "--index", index, "--threshold", "7"]).exit_code == 2
    inside = runner.invoke(app, ["duplicates", "--index", index, "--within", "document", "--json"])
    assert json.loads(inside.stdout)["of"] == "passage"
