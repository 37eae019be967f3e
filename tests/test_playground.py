"""The playground in a real browser: searching, what moved, settings, filters, ingest."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from retrieval.datatypes import Document
from tests.browser import Visit, visiting
from tests.playground_page import DEPTH, again, ask, open_page, playground, titles

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

QUERY = "copper pipe leak plumber"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with playground(tmp_path_factory.mktemp("playground") / "index") as address:
        yield address


@pytest.fixture
def visit(chromium: Browser, url: str) -> Iterator[Visit]:
    with visiting(chromium) as opened:
        open_page(opened.page, url)
        yield opened


def first_stage(url: str, query: str, **settings: Any) -> list[str]:
    body = {"query": query, "top_k": 100, "rerank": False, **settings}
    return [hit["document_id"] for hit in httpx.post(f"{url}/v1/search", json=body).json()["hits"]]


def test_typing_shows_both_orders(visit: Visit, url: str) -> None:
    answer = ask(visit.page, QUERY, one_by_one=True)
    assert titles(visit.page, "final") == [named(hit) for hit in answer["hits"]]
    assert [text.split()[0] for text in titles(visit.page, "first")[:4]] == ["copper"] * 4
    assert len(titles(visit.page, "first")) == min(20, len(first_stage(url, QUERY)))
    ends = {
        "complete": ", all it was asked to read.",
        "settled": "; then the best could not change any more.",
        "likely": "; then the best would hardly change any more.",
    }
    read = f"The cross-encoder read {answer['reranked']} of {answer['candidates']} candidates{ends[answer['stopped']]}"
    assert visit.page.inner_text("#reading") == read
    assert re.match(rf"{len(answer['hits'])} hits, \d+ moved, in ", visit.page.text_content("#status") or "")


def named(hit: dict[str, Any]) -> str:
    title: str = hit["title"] or hit["text"][:90].strip()
    return title


def test_lines_and_table_say_what_moved(visit: Visit, url: str) -> None:
    answer = ask(visit.page, QUERY)
    before = first_stage(url, QUERY)
    places = [(hit["rank"], before.index(hit["document_id"]) + 1) for hit in answer["hits"]]
    assert any(now != was for now, was in places)
    badges = visit.page.locator("#final .badge [aria-hidden]").all_text_contents()
    assert badges == [arrow(was - now) for now, was in places]
    visit.page.click("#as-table summary")
    cells = [row.split("\t") for row in visit.page.inner_text("#table-body").splitlines()]
    assert [(int(row[0]), int(row[1])) for row in cells] == places
    assert ends_of_lines(visit) == [(was, now) for now, was in places]


def arrow(up: int) -> str:
    return f"{'▲' if up > 0 else '▼'} {abs(up)}" if up else "="


def ends_of_lines(visit: Visit) -> list[tuple[int, int]]:
    """The rank that each line begins at and the one it ends at, by their heights on the screen."""
    return [
        (int(start), int(end))
        for start, end in visit.page.evaluate(
            """() => {
                const top = document.getElementById('lines').getBoundingClientRect().top;
                const nearest = (list, y) => [...document.querySelectorAll(`#${list} .rank`)].reduce((best, rank) => {
                    const box = rank.getBoundingClientRect();
                    const far = Math.abs(box.top + box.height / 2 - top - y);
                    return far < best.far ? {far, text: rank.textContent} : best;
                }, {far: 2, text: null}).text;
                return [...document.querySelectorAll('#lines path')].map((path) => {
                    const numbers = path.getAttribute('d').match(/[\\d.]+/g).map(Number);
                    return [nearest('first', numbers[1]), nearest('final', numbers.at(-1))];
                });
            }"""
        )
    ]


def test_the_window_that_was_read_is_marked_by_characters_not_by_code_units(visit: Visit) -> None:
    answer = ask(visit.page, "why does the moon pull the water")
    hit = next(hit for hit in answer["hits"] if hit["read"] and hit["document_id"].startswith("tide"))
    start, end = hit["read"]
    assert 0 < start < end < len(hit["text"])
    card = visit.page.locator("#final .card").nth(hit["rank"] - 1)
    assert card.locator("mark").text_content() == hit["text"][start:end]
    card.locator("button.title").click()
    whole = card.locator(".passage").evaluate("node => node.innerText")
    assert whole == hit["text"]


def test_the_budget_ends_the_reading_and_the_page_shows_where(visit: Visit) -> None:
    page = visit.page
    answer = ask(page, "why does the moon pull the water")
    assert answer["reranked"] == DEPTH
    page.focus("#set-budget_ms")
    answer = again(page, lambda: page.keyboard.press("Home"))
    assert page.inner_text("output[for=set-budget_ms]") == "10 ms"
    assert answer["stopped"] == "budget"
    read = answer["reranked"]
    assert 1 <= read < DEPTH
    assert page.inner_text("#reading").startswith(f"The cross-encoder read {read} of ")
    marker = page.evaluate("[...document.querySelectorAll('#first > li')].findIndex(row => row.matches('.read-to'))")
    assert marker == read
    assert page.locator("#bars .tick").count() == 1
    assert "budget_ms=10" in page.url


def test_without_reranking_nothing_moves(visit: Visit) -> None:
    ask(visit.page, QUERY)
    answer = again(visit.page, lambda: visit.page.click("label[for=set-rerank]"))
    assert answer["stopped"] == "off"
    assert set(visit.page.locator("#final .badge [aria-hidden]").all_text_contents()) == {"="}
    assert visit.page.inner_text("#final-name") == "As it came"


def test_settings_reach_the_service_and_can_be_taken_back(visit: Visit) -> None:
    page = visit.page
    ask(page, QUERY)
    with page.expect_request("**/v1/search") as sent:
        page.check("input[name=set-exact][value=true]", force=True)
    assert sent.value.post_data_json["exact"] is True
    answer = again(page, lambda: page.check("input[name=set-first_stage][value=bm25]", force=True))
    assert all(set(hit["arms"]) == {"bm25"} for hit in answer["hits"])
    assert "not found" in page.locator("#final .scores").first.inner_text()
    answer = again(page, lambda: page.get_by_role("button", name="Back to the defaults").click())
    assert any("dense" in hit["arms"] for hit in answer["hits"])
    assert page.url.endswith("#q=copper+pipe+leak+plumber")


def test_a_link_brings_the_search_back(visit: Visit, url: str) -> None:
    where = json.dumps({"must": [{"key": "metadata.topic", "match": {"value": "star"}}]})
    fragment = f"#q=bright&first_stage=bm25&top_k=2&where={where}"
    visit.page.goto("about:blank")
    with visit.page.expect_request("**/v1/search") as sent:
        open_page(visit.page, url, fragment)
    assert sent.value.post_data_json["first_stage"] == "bm25"
    visit.page.wait_for_selector("#final .card")
    assert len(titles(visit.page, "final")) == 2
    assert all("bright" in title for title in titles(visit.page, "final"))


def test_a_negation_is_pointed_out(visit: Visit) -> None:
    ask(visit.page, "copper pipe without leak")
    assert "The query says 'without': the first stage cannot see negation" in visit.page.inner_text("#warnings")
    ask(visit.page, QUERY)
    assert "negation" not in visit.page.inner_text("#warnings")


def test_values_of_the_metadata_filter(visit: Visit) -> None:
    page = visit.page
    ask(page, "sour copper")
    facet = page.locator("[data-field='metadata.topic'] label")
    assert sorted(text.split("\n")[0] for text in facet.all_inner_texts()) == ["bread", "pipe", "star", "tide"]
    answer = again(page, lambda: page.check("[data-field='metadata.topic'] label:has-text('bread') input"))
    assert {hit["metadata"]["topic"] for hit in answer["hits"]} == {"bread"}
    answer = again(page, lambda: page.fill("[data-field='metadata.year'] [aria-label='year from']", "2011"))
    assert {hit["document_id"] for hit in answer["hits"]} == {"bread-3", "bread-4"}


def test_a_filter_in_json_is_checked_here_and_by_the_service(visit: Visit) -> None:
    page = visit.page
    ask(page, "sour copper")
    before = titles(page, "final")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.fill("#where", '{"must": [')
    assert page.inner_text("#where-state").startswith("Not JSON yet")
    assert page.get_attribute("#where", "aria-invalid") == "true"
    page.fill("#where", '{"most": []}')
    assert 'not "most"' in page.inner_text("#where-state")
    page.wait_for_timeout(500)
    assert sent == []
    visit.expect("422")
    page.fill("#where", '{"must": [{"key": "metadata.topic", "matches": 1}]}')
    page.wait_for_selector("#where-state.wrong:has-text('matches')")
    assert titles(page, "final") == before
    right = '{"must": [{"key": "metadata.topic", "match": {"value": "pipe"}}]}'
    answer = again(page, lambda: page.fill("#where", right))
    assert {hit["metadata"]["topic"] for hit in answer["hits"]} == {"pipe"}
    assert page.get_attribute("#where", "aria-invalid") == "false"


def test_an_answer_that_comes_late_is_not_shown(visit: Visit) -> None:
    page = visit.page
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.post_data_json["query"] == QUERY:
            held.append(route)
        else:
            route.fallback()

    page.route("**/v1/search", hold)
    page.fill("#query", QUERY)
    page.wait_for_selector("#results[aria-busy=true]")
    ask(page, "sour bread dough flour")
    shown = titles(page, "first")
    assert held
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert titles(page, "first") == shown
    assert "sour bread" in shown[0]


def test_typing_on_asks_once_for_each_stage(visit: Visit) -> None:
    sent: list[str] = []
    visit.page.on("request", lambda request: sent.append(request.post_data or "") if "search" in request.url else None)
    # Ten keys without a pause between them, however slow this machine is.
    visit.page.evaluate(
        """() => {
            const query = document.getElementById('query');
            for (const letter of 'sour bread') {
                query.value += letter;
                query.dispatchEvent(new InputEvent('input', {bubbles: true}));
            }
        }"""
    )
    visit.page.wait_for_selector("#final .card")
    assert [(body["query"], body["rerank"]) for body in map(json.loads, sent)] == [
        ("sour bread", False),
        ("sour bread", True),
    ]


@pytest.mark.parametrize("dropped", [False, True], ids=["chosen", "dropped"])
def test_a_file_is_ingested_and_found(visit: Visit, tmp_path: Path, dropped: bool) -> None:
    page = visit.page
    word = "zanzibar" if dropped else "timbuktu"
    text = f"The caravan to {word} carries salt and dates."
    if dropped:
        page.evaluate(
            """([name, text]) => {
                const data = new DataTransfer();
                data.items.add(new File([text], name, {type: 'text/plain'}));
                for (const kind of ['dragenter', 'dragover', 'drop']) {
                    const event = new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
                    document.body.dispatchEvent(event);
                }
            }""",
            [f"{word}.txt", text],
        )
    else:
        path = tmp_path / f"{word}.txt"
        path.write_text(text, encoding="utf-8")
        page.set_input_files("#files", [path])
    page.wait_for_selector(f".job.done:has-text('{word}.txt')")
    assert "1 added; 1 passage in" in page.inner_text(".job.done")
    assert page.locator("#drop").is_hidden()
    answer = ask(page, f"caravan {word}")
    assert answer["hits"][0]["document_id"] == f"{word}.txt"
    assert text.split(".")[0] in page.locator("#final .card").first.inner_text()


def test_what_cannot_be_ingested_is_said(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"id": "fine-1", "text": "gondola in the lagoon"}\n{"id": \n', encoding="utf-8")
    visit.page.set_input_files("#files", [path])
    visit.page.wait_for_selector(".job.partly")
    assert "1 added, 1 rejected" in visit.page.inner_text(".job.partly")
    assert "broken.jsonl" in visit.page.inner_text(".job.partly .rejected")


def test_the_search_as_a_command_finds_the_same(visit: Visit, url: str) -> None:
    answer = ask(visit.page, "the plumber's copper pipe")
    visit.page.click("#as-request summary")
    words = shlex.split(visit.page.inner_text("#request").replace("\\\n", " "))
    assert words[:3] == ["curl", "-s", f"{url}/v1/search"]
    body = json.loads(words[words.index("-d") + 1])
    again = httpx.post(words[2], json=body).json()
    assert [hit["document_id"] for hit in again["hits"]] == [hit["document_id"] for hit in answer["hits"]]


def test_all_candidates_can_be_shown(visit: Visit, url: str) -> None:
    query = "the tide number copper sour bright"
    ask(visit.page, query)
    total = len(first_stage(url, query))
    assert total > 20
    assert visit.page.locator("#first .row").count() == 20
    visit.page.click("#more")
    assert visit.page.locator("#first .row").count() == total
    assert visit.page.locator("#more").is_hidden()


def test_an_empty_index_says_how_to_begin(chromium: Browser, tmp_path: Path) -> None:
    with playground(tmp_path / "index", []) as url, visiting(chromium) as visit:
        open_page(visit.page, url)
        assert "The index is empty." in visit.page.inner_text("#empty")


def test_every_passage_or_the_best_of_each_document(chromium: Browser, tmp_path: Path) -> None:
    words = " ".join(f"lighthouse keeper word{number}." for number in range(250))
    documents = [Document("long", words, title="Long"), Document("short", "lighthouse keeper", title="Short")]
    with playground(tmp_path / "index", documents) as url, visiting(chromium) as visit:
        open_page(visit.page, url)
        ask(visit.page, "lighthouse keeper")
        assert sorted(titles(visit.page, "final")) == ["Long", "Short"]
        again(visit.page, lambda: visit.page.check("input[name=set-group_by][value=passage]", force=True))
        assert titles(visit.page, "final").count("Long") > 1
        assert visit.page.locator("#lines path").count() == len(titles(visit.page, "final"))
