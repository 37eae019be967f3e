"""Clusters, their labels and the map: topics that are known beforehand, and a page that needs nothing else."""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.corpus_views.clusters import best_count
from pipelines.corpus_views.labels import label_clusters
from pipelines.render.map_html import map_page
from retrieval.config import Bm25Config, Config, MemoryStoreConfig
from retrieval.datatypes import Document
from retrieval.encoders import Bm25Encoder
from retrieval.errors import MissingExtraError, StoreError
from tests.browser import visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOPICS = {
    "cooking": "butter flour oven dough sugar cream recipe bake salt kitchen pepper sauce",
    "space": "planet galaxy orbit telescope star comet moon astronaut rocket satellite asteroid nebula",
    "law": "court judge lawyer appeal verdict statute jury contract plaintiff testimony attorney trial",
    "sport": "football goalkeeper tournament stadium coach championship league striker referee athlete match team",
}
EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)"> <!--DATA--> & \u2028'


def documents(each: int = 30) -> list[Document]:
    """Texts of eight words of one topic each, in a fixed order."""
    rng = random.Random(4)
    made = []
    for topic, words in TOPICS.items():
        for number in range(each):
            text = " ".join(rng.sample(words.split(), 8))
            made.append(
                Document(f"{topic}-{number}", text, title=f"{topic.title()} {number}", metadata={"topic": topic})
            )
    return made


def memory() -> Config:
    return Config(store=MemoryStoreConfig())


@pytest.fixture(scope="module")
def pipeline() -> Iterator[TwoStagePipeline]:
    with TwoStagePipeline.open(config=memory()) as opened:
        opened.ingest([*documents(), Document("evil", f"butter flour oven dough {EVIL}", title=EVIL)])
        yield opened


def topics_of(points: object, number: int) -> Counter[str]:
    return Counter(point.document_id.split("-")[0] for point in points if point.cluster == number)  # type: ignore[attr-defined]


def test_known_topics_become_clusters_with_their_words(pipeline: TwoStagePipeline) -> None:
    report = pipeline.clusters()
    assert (report.total, len(report.points), report.mapped) == (121, 121, False)
    assert len(report.clusters) == 4
    assert dict(report.silhouettes)[4] == max(score for _, score in report.silhouettes)
    assert [cluster.size for cluster in report.clusters] == [31, 30, 30, 30]
    for cluster in report.clusters:
        ((topic, _),) = {**topics_of(report.points, cluster.number), "evil": 0}.items() - {("evil", 0)}
        assert set(cluster.label.split(", ")) <= {topic, *TOPICS[topic].split()}
        assert cluster.central[0][0].startswith(topic)
        assert 0.3 < cluster.cohesion < 1


def test_the_same_seed_gives_the_same_map(pipeline: TwoStagePipeline) -> None:
    first, again = (pipeline.clusters(mapped=True, seed=3) for _ in range(2))
    assert first.points == again.points
    places = np.array([(point.x, point.y) for point in first.points])
    assert np.isfinite(places).all()
    assert (places.min(axis=0).tolist(), places.max(axis=0).tolist()) == ([-1, -1], [1, 1])
    # On the map, most neighbours are of the same topic.
    numbers = np.array([point.cluster for point in first.points])
    far = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(len(places))
    assert (numbers[far.argmin(axis=1)] == numbers).mean() > 0.9


def test_number_sample_and_filter_are_as_asked_for(pipeline: TwoStagePipeline) -> None:
    two = pipeline.clusters(count=2)
    assert (len(two.clusters), two.silhouettes) == (2, ())
    some = pipeline.clusters(limit=40)
    assert (some.total, len(some.points)) == (121, 40)
    assert some.points == pipeline.clusters(limit=40).points
    assert {one.document_id for one in some.points} != {
        one.document_id for one in pipeline.clusters(limit=40, seed=1).points
    }
    law = pipeline.clusters(where={"must": [{"key": "metadata.topic", "match": {"value": "law"}}]})
    assert {point.document_id.split("-")[0] for point in law.points} == {"law"}


def test_passages_of_a_document_are_points_of_their_own() -> None:
    config = Config.model_validate({"store": {"kind": "memory"}, "chunking": {"max_tokens": 16, "overlap_tokens": 0}})
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest([Document("long", "\n\n".join(document.text for document in documents(3)))])
        by_document = pipeline.clusters(mapped=True)
        by_passage = pipeline.clusters(by="passage", count=2, mapped=True)
    assert [(point.document_id, point.index) for point in by_document.points] == [("long", None)]
    assert len(by_document.clusters) == 1
    assert sorted(point.index or 0 for point in by_passage.points) == list(range(len(by_passage.points)))
    assert len(by_passage.points) >= 6


@pytest.mark.parametrize("count", [1, 2, 3, 9, 12])
def test_few_documents_have_a_map_too(count: int) -> None:
    with TwoStagePipeline.open(config=memory()) as pipeline:
        pipeline.ingest(documents(3)[:count])
        report = pipeline.clusters(mapped=True)
    assert len(report.points) == count
    assert all(-1 <= value <= 1 for point in report.points for value in (point.x, point.y))


def test_equal_documents_are_one_cluster() -> None:
    with TwoStagePipeline.open(config=memory()) as pipeline:
        pipeline.ingest([(str(number), "butter and flour") for number in range(30)])
        report = pipeline.clusters(mapped=True)
        assert len(report.clusters) == 1
        assert report.clusters[0].cohesion == pytest.approx(1.0)
        assert len(pipeline.clusters(count=5).clusters) == 1


def test_the_number_of_clusters_is_the_largest_that_is_nearly_best() -> None:
    assert best_count([(2, 0.12), (3, 0.09), (4, 0.070), (8, 0.065), (12, 0.066), (16, 0.05)]) == 12
    assert best_count([(2, 0.30), (3, 0.50), (4, 0.40), (8, 0.1)]) == 3
    assert best_count([(2, 0.1), (4, -0.1)]) is None
    assert best_count([]) is None


def test_labels_are_frequent_and_distinctive() -> None:
    sparse = Bm25Encoder(Bm25Config())
    texts = ["the common cat purrs", "a common cat sleeps", "common dogs bark", "one common dog barks"]
    cats, dogs = label_clusters(texts, np.array([0, 0, 1, 1]), 2, sparse)
    assert cats.terms[0] == "cat"
    assert set(dogs.terms[:2]) <= {"dog", "dogs", "bark", "barks"}
    assert "the" not in cats.terms
    assert cats.terms.index("cat") < cats.terms.index("common")
    (alone,) = label_clusters(["\U0001f600", "the"], np.array([0, 0]), 1, sparse)
    assert alone.label == "(no words)"


def test_bad_arguments_and_an_empty_index_are_refused(pipeline: TwoStagePipeline) -> None:
    for arguments in ({"count": 0}, {"count": 101}, {"limit": 0}, {"by": "page"}):
        with pytest.raises(ValueError, match=r"not|got"):
            pipeline.clusters(**arguments)  # type: ignore[arg-type]
    with TwoStagePipeline.open(config=memory()) as empty, pytest.raises(StoreError, match="nothing to put"):
        empty.clusters()


def test_without_scikit_learn_the_remedy_is_said(pipeline: TwoStagePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match="sklearn"):
        pipeline.clusters()


def test_the_page_holds_the_data_and_nothing_that_a_document_says_can_end_it(pipeline: TwoStagePipeline) -> None:
    page = map_page(pipeline.clusters(mapped=True), f"name {EVIL}")
    assert page.count("<script") == 2
    assert "<img" not in page
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert (len(data["points"]), len(data["labels"])) == (121, 4)
    assert any("</script>" in point[5] for point in data["points"])
    assert not re.search(r"<[^>]*\s(?:src|href)\s*=|url\(|https?://(?!www\.w3\.org/2000/svg)", page)
    with pytest.raises(ValueError, match="places"):
        map_page(pipeline.clusters(), "no places")


def test_the_page_works_in_a_browser(pipeline: TwoStagePipeline, chromium: Browser, tmp_path: Path) -> None:
    file = tmp_path / "map.html"
    file.write_text(map_page(pipeline.clusters(mapped=True), "topics"), encoding="utf-8")
    with visiting(chromium, viewport={"width": 390, "height": 800}) as visit:
        page = visit.page
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#legend button").count() == 4
        page.fill("#search", "cooking 1")
        # Cooking 1 and 10 to 19.
        assert page.inner_text("#found") == "11 of 121"
        page.fill("#search", "")
        page.locator("#legend button").first.click()
        assert page.inner_text("#found") == "31 of 121"
        assert page.locator("#legend button").first.get_attribute("aria-pressed") == "true"
        page.keyboard.press("Escape")
        assert page.inner_text("#found") == ""
        x, y = page.evaluate(
            """() => { const box = canvas.getBoundingClientRect(), i = points.findIndex((p) => p[3] === "law-7");
                const [a, b] = place(points[i]); return [box.left + a, box.top + b]; }"""
        )
        page.mouse.move(x, y)
        assert "Law" in page.inner_text("#tip b")
        page.locator("summary").first.click()
        assert page.locator("details[open] li").count() == 31


def test_the_command_line(tmp_path: Path) -> None:
    index, out = tmp_path / "index", tmp_path / "map.html"
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest(documents(8))
    runner = CliRunner()
    shown = runner.invoke(app, ["map", "--index", str(index), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "telling words" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    record = json.loads(runner.invoke(app, ["map", "--index", str(index), "--json", "--clusters", "4"]).stdout)
    assert (record["mapped"], len(record["clusters"]), len(record["points"])) == (True, 4, 32)
    assert runner.invoke(app, ["map", "--index", str(index), "--out", str(tmp_path)]).exit_code == 2
