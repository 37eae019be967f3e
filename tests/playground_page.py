"""The playground over a small real index, and what a person does on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig
from retrieval.datatypes import Document
from tests.conftest import paper_corpus
from tests.service_app import service_config, small_config
from tests.service_thread import running

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TIDES = 10
DEPTH = 6
# Two UTF-16 units each: offsets that count characters and offsets of a browser differ behind them.
_WAVES = "\U0001f30a\U0001f30a\U0001f30a"
_PADDING = " ".join(f"remark{number} on weather and harbours" for number in range(30))


def tides() -> list[Document]:
    """Documents that are long enough for reading them to take longer than any budget of the tests."""
    return [
        Document(
            id=f"tide-{number}",
            title=f"Tide {number}",
            text=f"{_WAVES} {_PADDING}. The tide number {number} rises because the moon pulls the water. {_PADDING}.",
            metadata={"topic": "tide", "year": 2020 + number % 2},
        )
        for number in range(TIDES)
    ]


@contextmanager
def playground(
    index: Path, documents: Sequence[Document] | None = None, config: ServiceConfig | None = None
) -> Iterator[str]:
    """The address of a playground; ``documents`` are those on paper and the tides where they are not given."""
    pipeline = TwoStagePipeline.open(index, small_config(rerank={"depth": DEPTH, "cache_mb": 0}))
    found = [*paper_corpus(), *tides()] if documents is None else documents
    if found:
        pipeline.ingest(found)
    with running(pipeline, config or service_config()) as url:
        yield url


def open_page(page: Page, url: str, fragment: str = "") -> None:
    """Go there, and wait until the page knows the index."""
    page.goto(f"{url}/{fragment}")
    page.wait_for_selector("#facts dd", state="attached")


def ask(page: Page, query: str, *, one_by_one: bool = False) -> dict[str, Any]:
    """Write a query at once or key by key, and wait for its final order.

    Returns:
        What the service answered.
    """
    with page.expect_response(lambda answer: _is_final(answer.request.post_data_json, query)) as answer:
        if one_by_one:
            page.fill("#query", "")
            page.locator("#query").press_sequentially(query)
        else:
            page.fill("#query", query)
    return shown(page, answer.value.json())


def again(page: Page, change: Any) -> dict[str, Any]:
    """Do something that changes the search, and wait for the final order.

    Returns:
        What the service answered.
    """
    query = page.input_value("#query")
    with page.expect_response(lambda answer: _is_final(answer.request.post_data_json, query)) as answer:
        change()
    return shown(page, answer.value.json())


def shown(page: Page, answer: dict[str, Any]) -> dict[str, Any]:
    """Wait until the page shows an answer."""
    page.wait_for_function(
        """(count) => document.querySelectorAll('#final .card').length === count
            && document.getElementById('results').getAttribute('aria-busy') === 'false'
            && document.getElementById('status').textContent !== ''""",
        arg=len(answer["hits"]),
    )
    return answer


def titles(page: Page, column: str) -> list[str]:
    """The names of the hits of a column, ``first`` or ``final``."""
    return page.locator(f"#{column} button.title").all_text_contents()


def focused(page: Page) -> Locator:
    """What has the focus."""
    return page.locator(":focus")


def _is_final(body: Any, query: str) -> bool:
    # The order of the first stage is asked for with as many hits as may be asked for.
    return isinstance(body, dict) and body.get("query") == query and body.get("top_k") != 100
