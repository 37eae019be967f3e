"""The page of examples/browser in a real Chromium: tokens and vectors as Python makes them, search while one types."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from pipelines import TwoStagePipeline
from pipelines.export import ModelToExport, export_model, model_to_export
from retrieval.config import Config
from retrieval.encoders import StaticEncoder
from retrieval.models import find_model
from tests.browser import visiting
from tests.conftest import paper_corpus
from tests.static_models import NASTY, bert_tokenizer, random_table, texts, write_own

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGE = Path(__file__).parents[1] / "examples" / "browser"
# The tokenizer knows these as one character, newer versions of Unicode take them apart.
_NEWER = "\U000105c9 \U00011385 \U00016121 \u1734 \u00e9\u0323 \uac00"
TEXTS = [*NASTY[:-1], _NEWER, "pipe not broken", "Pipe NOT  broken", *texts()[len(NASTY) :][:250]]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with two exported models beside it, one of them with an index."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(PAGE, root / "page", ignore=shutil.ignore_patterns("model"))
    with TwoStagePipeline.open(root / "index") as pipeline:
        pipeline.ingest(paper_corpus())
        export_model(model_to_export(Config(), root / "index"), root / "page" / "model", index=pipeline)
    tokenizer = bert_tokenizer(added=[AddedToken("not broken", normalized=True), "[X]"])
    folder = write_own(root / "tiny", tokenizer, {"embeddings": random_table(tokenizer)})
    export_model(
        ModelToExport(StaticEncoder.open(folder), "a tiny model"), root / "page" / "float32", precision="float32"
    )
    return root


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """The page on a plain static server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root / "page")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _encoded(page: Page, folder: str, wanted: list[str]) -> tuple[list[list[int]], np.ndarray]:
    code = """async ([folder, texts]) => {
        const { Model } = await import("./model.js");
        const model = await Model.open(folder);
        return texts.map((text) => [model.tokenizer.ids(text), Array.from(model.encode(text))]);
    }"""
    made = page.evaluate(code, [folder, wanted])
    return [ids for ids, _ in made], np.array([vector for _, vector in made], np.float32)


@pytest.mark.parametrize("folder", ["model", "float32"])
def test_tokens_and_vectors_are_those_of_python(root: Path, site: str, chromium: Browser, folder: str) -> None:
    with visiting(chromium) as visit:
        visit.page.goto(f"{site}/index.html")
        ids, vectors = _encoded(visit.page, folder, TEXTS)
    source = find_model("starter-static") if folder == "model" else root / "tiny"
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    expected = [encoding.ids for encoding in tokenizer.encode_batch(TEXTS, add_special_tokens=False)]
    assert len(TEXTS) >= 200
    assert [at for at, one in enumerate(ids) if one != expected[at]] == []
    ours = StaticEncoder.open(source).encode_documents(TEXTS)
    known = ours.any(axis=1)
    assert known.sum() > 200
    assert not vectors[~known].any()
    assert (ours * vectors).sum(axis=1)[known].min() > 0.99999


def test_one_searches_while_typing(site: str, chromium: Browser) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        page.goto(f"{site}/index.html")
        page.wait_for_selector("#query:enabled")
        page.keyboard.type("sourdough bread starter")
        assert page.locator("#results li h2").first.inner_text().startswith("bread-2")
        assert page.locator("#results li").count() == 8
        assert "compared 12 passages in" in page.inner_text("#timing")
        assert page.locator("#results mark").first.inner_text() in {"bread", "starter"}
        page.fill("#query", "\u16a0\u16b1")
        assert page.locator("#results li").count() == 0
        assert "No word" in page.inner_text("#status")


def test_the_order_is_that_of_the_static_arm(site: str, chromium: Browser, tmp_path: Path) -> None:
    query = "telescope pictures of the night sky"
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest(paper_corpus())
        hits = pipeline.search(query, 8, rerank=False, first_stage="dense")
    with visiting(chromium) as visit:
        visit.page.goto(f"{site}/index.html")
        visit.page.wait_for_selector("#query:enabled")
        code = """(query) => retrieval.passages.search(retrieval.model.encode(query), 8)
            .map(({ passage, score }) => [passage.id, score])"""
        found = visit.page.evaluate(code, query)
    cosines = {hit.document_id: hit.arms["dense"].score for hit in hits}
    assert [name for name, _ in found][:3] == [hit.document_id for hit in hits][:3]
    assert max(abs(score - cosines[name]) for name, score in found if name in cosines) < 0.01


def test_a_missing_model_is_said_and_a_phone_is_wide_enough(site: str, chromium: Browser) -> None:
    with visiting(chromium, viewport={"width": 360, "height": 740}) as visit:
        visit.expect("404")
        visit.page.goto(f"{site}/index.html?model=nothing")
        visit.page.wait_for_selector("#status.failed")
        assert "nothing/" in visit.page.inner_text("#status")
        visit.page.goto(f"{site}/index.html")
        visit.page.wait_for_selector("#query:enabled")
        visit.page.fill("#query", "copper pipe leak")
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
