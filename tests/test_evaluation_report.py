"""What people read of an evaluation: Markdown, and the page with its plots."""

from __future__ import annotations

import builtins
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from pipelines.evaluation import CollectionReport, Evaluation
from pipelines.evaluation.loss_report import Estimate
from pipelines.evaluation.measure import result_of_run
from pipelines.render import loss_tables
from pipelines.render.evaluation import render_evaluation
from pipelines.render.evaluation_tables import findings, overview
from pipelines.render.report_html import html_report
from pipelines.render.report_markdown import markdown_report
from retrieval.errors import MissingExtraError
from retrieval.evaluation import LatencySummary, compare
from tests.test_losses import report_with

QUERIES = {f"q{number}": f"where is number {number}?" for number in range(12)}
QRELS = {query: {f"d{number}": 1} for number, query in enumerate(QUERIES)}
SVG = "{http://www.w3.org/2000/svg}"


def report_of(names: tuple[str, str, str] = ("low", "high", "middle"), folder: str = "numbers") -> CollectionReport:
    """The second system is right on all queries, the first on none, the third on every other one."""
    right = [(), range(12), range(0, 12, 2)]
    systems = []
    for position, (name, hits) in enumerate(zip(names, right, strict=True)):
        run = {query: ((f"d{number}" if number in hits else "x", 1.0),) for number, query in enumerate(QUERIES)}
        ms = 10.0 ** (position + 1)
        latency = LatencySummary(ms, 2 * ms, 1000 / ms)
        systems.append(
            result_of_run(
                name, run, QRELS, ("RR@10", "P@1"), setup=0, latency=latency, reranked=0.0, bytes_per_passage=100.0 * ms
            )
        )
    return CollectionReport(
        collection=f"beir/{folder}",
        split="test",
        queries=QUERIES,
        qrels=QRELS,
        measures=("RR@10", "P@1"),
        setups=(),
        systems=tuple(systems),
        baseline=names[0],
        comparisons=compare({system.name: system.per_query for system in systems}, names[0]),
        timed_queries=12,
        timed_top_k=5,
        price_per_hour=None,
    )


def evaluation_of(*reports: CollectionReport) -> Evaluation:
    machine: dict[str, str | int] = {"cpus": 2, "processor": "An <b>old</b> one", "python": "3.11", "platform": "here"}
    return Evaluation("retrieval evaluate numbers", "1.0", "2026-01-02T03:04:05Z", machine, reports)


@cache
def page() -> str:
    """The page of the plain report, which several tests look at."""
    return html_report(evaluation_of(report_of()))


class Page(HTMLParser):
    """Counts elements and collects text and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and not (value or "").startswith("#"):
                self.loaded.append(str(value))

    def handle_data(self, data: str) -> None:
        self.text += data


def plots_of(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]


def words_of(plot: ET.Element) -> set[str]:
    return {" ".join("".join(node.itertext()).split()) for node in plot.iter(f"{SVG}text")}


def test_the_findings_name_no_winner_where_there_is_none() -> None:
    # high: twelve gains, p = 2/4096; middle: six, p = 2/64; four comparisons, P@1 as RR@10.
    assert findings(report_of(), "RR@10") == [
        "high is better than low in RR@10 (+1.000, 95 % +1.000 to +1.000)",
        "middle and low: not distinguishable with 12 queries in RR@10 (+0.500, 95 % +0.250 to +0.750)",
    ]


def test_markdown() -> None:
    text = markdown_report(evaluation_of(report_of()))
    assert "An \\<b\\>old\\</b\\> one" in text
    assert "```console\n$ retrieval evaluate numbers\n```" in text
    assert "| high | 1.000 | 1.000-1.000 | 1.000 |" in text
    assert "| high | +1.000 | +1.000 to +1.000 | 0.002 | better |" in text
    assert "| middle | 1000.0 | 2000.0 | 1.0 | 100,000 | 0.0 |" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_names_cannot_break_out_of_a_table() -> None:
    names = ("a|b", "<script>alert(1)</script>", "$x_1$\x1b[31m")
    text = markdown_report(evaluation_of(report_of(names)))
    assert "| a\\|b |" in text
    assert "\x1b" not in text
    html = html_report(evaluation_of(report_of(names)))
    assert "<script" not in html
    assert "\x1b" not in html
    assert "script" not in Page(html).tags
    # Neither is it read as a formula.
    assert "$x_1$ [31m" in words_of(plots_of(html)[0])


def test_the_page_loads_nothing_and_shows_everything() -> None:
    text = page()
    shown = Page(text)
    assert shown.loaded == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert (shown.tags["svg"], shown.tags["figure"], shown.tags["details"]) == (3, 3, 2)
    for words in ("retrieval evaluate numbers", "An <b>old</b> one", "high is better than low in RR@10", "+0.500"):
        assert words in shown.text
    assert "where is number 9?" in shown.text
    assert len(text) < 150_000
    assert html_report(evaluation_of(report_of())) == text


def test_the_plots_hold_the_systems_and_follow_the_theme() -> None:
    text = page()
    latency, size, gains = plots_of(text)
    for plot in (latency, size):
        assert {"low", "high", "middle", "RR@10, 95 % interval"} <= words_of(plot)
    assert {"12 better, 0 worse,", "0 same", "6 better, 0 worse,", "6 same"} <= words_of(gains)
    for plot in (latency, size, gains):
        assert plot.get("role") == "img"
        assert plot.get("aria-label")
        colours = set(re.findall(r"#[0-9a-f]{6}", ET.tostring(plot, encoding="unicode")))
        assert colours == set(), "colours that a dark page cannot change"
        used = set(re.findall(r"var\((--[\w]+)\)", ET.tostring(plot, encoding="unicode")))
        assert all(f"{name}:" in text for name in used)
    ids = [node.get("id") for plot in (latency, size, gains) for node in plot.iter() if node.get("id")]
    assert len(ids) == len(set(ids))


def test_the_spots_stand_where_the_numbers_say() -> None:
    latency = plots_of(page())[0]
    spots = [
        (float(node.get("x", 0)), float(node.get("y", 0)))
        for number in range(3)
        for node in latency.iter(f"{SVG}use")
        if f"var(--s{number})" in node.get("style", "")
    ]
    (low_x, low_y), (high_x, high_y), (middle_x, middle_y) = spots
    # 10, 100 and 1000 ms on a logarithmic axis; quality 0, 1 and 0.5, and y grows downwards.
    assert high_x - low_x == pytest.approx(middle_x - high_x, abs=0.01)
    assert low_x < high_x
    assert middle_y == pytest.approx((low_y + high_y) / 2, abs=0.01)
    assert high_y < low_y


def test_a_run_from_elsewhere_is_a_line() -> None:
    report = report_of()
    elsewhere = replace(report.systems[2], setup=None, latency=None, bytes_per_passage=None, reranked=None)
    text = html_report(evaluation_of(replace(report, systems=(*report.systems[:2], elsewhere))))
    latency = plots_of(text)[0]
    assert "middle" in words_of(latency)
    assert "stroke-dasharray" in ET.tostring(latency, encoding="unicode")
    nothing = tuple(replace(one, setup=None, latency=None, bytes_per_passage=None) for one in report.systems)
    assert Page(html_report(evaluation_of(replace(report, systems=nothing)))).tags["svg"] == 1


def test_several_collections_have_an_overview() -> None:
    evaluation = evaluation_of(report_of(), report_of(folder="others"))
    grid = overview(evaluation)
    assert grid is not None
    assert grid.header == ("", "numbers", "others")
    assert [row[1].split() for row in grid.rows] == [["0.000"], ["1.000", "▲"], ["0.500", "="]]
    assert Page(html_report(evaluation)).tags["svg"] == 6
    assert overview(evaluation_of(report_of())) is None


def test_where_documents_were_lost_in_every_form() -> None:
    """Of 100, ten have no place, 14 go in the first stage, 8 unread, 5 by their order: 63 are in the top."""
    lost = report_with(
        {"no place": 10, "encoder and BM25": 8, "fusion cut": 6, "rerank depth": 8, "cross-encoder": 5},
        advice=("Lower its <b>weight</b>: -0.030.",),
    )
    steps = loss_tables.steps(lost)
    left = [step.documents for step in steps if not step.lost]
    assert left == [100, 76, 68, 63]
    assert sum(step.documents for step in steps if step.lost) == 37
    assert [step.label for step in steps if not step.avoidable] == ["no place: over 10 relevant"]
    rows = {row[0].strip(" -"): row[1:] for row in loss_tables.way(lost).rows}
    assert rows["missed by encoder and BM25"] == ("-8", "8.0 %", "")
    assert rows["among the 100 candidates"] == ("76", "76.0 %", "0.800")
    assert "quantization" not in rows
    compressed = loss_tables.way(replace(lost, exact_gain=Estimate(0.0, (0.0, 0.0))))
    assert "  - quantization" in [row[0] for row in compressed.rows]
    # Of eight that both missed, BM25 has none of four at all.
    assert loss_tables.arms(lost).rows[1] == ("BM25", "85", "85.0 %", "10", "1", "0", "4")

    evaluation = evaluation_of(replace(report_of(), losses=lost), replace(report_of(folder="others"), losses=lost))
    console = Console(width=80, record=True, file=io.StringIO())
    render_evaluation(console, evaluation)
    text, markdown, page = console.export_text(), markdown_report(evaluation), html_report(evaluation)
    assert max(map(len, text.splitlines())) <= 80
    for form in (" ".join(text.split()), re.sub(r"\\(.)", r"\1", markdown), Page(page).text):
        assert "Where relevant documents were lost: two-stage, top 10" in form
        assert "The second stage is the bottleneck" in form
        assert "Lower its <b>weight</b>: -0.030." in form
        assert "lost by the first stage" in form
    plot = plots_of(page)[3]
    assert {"100, nDCG 1.000", "-8 (8.0 %)", "63, nDCG 0.800", "cut by fusion at 100"} <= words_of(plot)
    assert Page(page).tags["svg"] == 8


def test_without_losses_nothing_is_said_of_them() -> None:
    evaluation = evaluation_of(report_of(), report_of(folder="others"))
    assert loss_tables.overview(evaluation) is None
    assert loss_tables.TITLE not in markdown_report(evaluation)
    assert loss_tables.TITLE not in html_report(evaluation)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(f"no module {name}", name=name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'two-stage-retrieval[report]'")):
        html_report(evaluation_of(report_of()))


def test_thousands_of_queries_stay_a_small_file() -> None:
    queries = {f"q{number}": "query " * 50 for number in range(2_000)}
    values = {query: {"m": (number % 7) / 7} for number, query in enumerate(queries)}
    report = report_of()
    systems = tuple(
        replace(
            system,
            means={"RR@10": 0.5},
            per_query={"RR@10": {query: (value["m"] + position / 10) % 1 for query, value in values.items()}},
        )
        for position, system in enumerate(report.systems)
    )
    large = replace(
        report,
        queries=queries,
        measures=("RR@10",),
        systems=systems,
        comparisons=compare({system.name: system.per_query for system in systems}, "low"),
    )
    assert len(html_report(evaluation_of(large))) < 300_000
