"""Aliases on the wire: a first index, the switch to the next generation, what is refused and what is cleaned up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.config import parse_config
from retrieval.errors import IndexMismatchError, StoreError
from retrieval.stores.server import ServerStore
from retrieval.stores.server import connection as server_connection
from tests.qdrant_double import QdrantDouble
from tests.qdrant_stub import Qdrant, running

MANIFEST = {"schema_version": 1, "passages": 0, "state": "ready", "previous": 1}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, recorded and not made."""
    made: list[float] = []
    monkeypatch.setattr(server_connection, "_sleep", made.append)
    return made


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    """A server whose alias ``books`` stands for ``books-g1``."""
    with running(Qdrant()) as script:
        points_to(script, "books-g1")
        yield script


def points_to(qdrant: Qdrant, collection: str, *others: str) -> None:
    qdrant.results["/aliases"] = {"aliases": [{"alias_name": "books", "collection_name": collection}]}
    qdrant.results["/collections"] = {"collections": [{"name": name} for name in (collection, *others)]}


def open_books(url: str, **store: Any) -> ServerStore:
    return ServerStore(parse_config({"store": {"kind": "server", "url": url, "collection": "books", **store}}), dim=4)


def writes(qdrant: Qdrant) -> list[str]:
    return [line for line in qdrant.lines() if not line.startswith("GET") and not line.endswith("/index")]


def test_a_switch_writes_the_manifest_and_then_moves_the_alias_in_one_request(qdrant: Qdrant) -> None:
    with open_books(qdrant.url) as live:
        assert live.generation == 1
        qdrant.exists = False
        grown = live.start_generation(4)
        assert grown.generation == 2
        qdrant.sent.clear()
        grown.make_live(MANIFEST)
        grown.close()
    assert writes(qdrant) == ["PATCH /collections/books-g2", "POST /collections/aliases"]
    written, switched = [sent for sent in qdrant.sent if sent.method != "GET"]
    assert json.loads(written.body["metadata"]["manifest"]) == {**MANIFEST, "generation": 2, "previous": 1}
    assert json.loads(written.body["metadata"]["previous_collection"]) == {"name": "books-g1"}
    assert switched.body == {
        "actions": [
            {"delete_alias": {"alias_name": "books"}},
            {"create_alias": {"collection_name": "books-g2", "alias_name": "books"}},
        ]
    }
    assert switched.query == written.query == "timeout=600"


def test_a_switch_whose_answer_was_lost_is_repeated(qdrant: Qdrant, pauses: list[float]) -> None:
    with open_books(qdrant.url) as live:
        grown = live.start_generation(4)
        qdrant.sent.clear()
        qdrant.fail("POST /collections/aliases", 503)
        grown.make_live(MANIFEST)
        grown.close()
    assert (len(qdrant.to("POST", "/collections/aliases")), len(pauses)) == (2, 1)


def test_another_process_that_was_faster_is_not_overwritten(qdrant: Qdrant) -> None:
    with open_books(qdrant.url) as live:
        grown = live.start_generation(4)
        points_to(qdrant, "books-g7")
        with pytest.raises(StoreError, match="books was switched to books-g7 by another process meanwhile"):
            grown.make_live(MANIFEST)
        assert not qdrant.to("POST", "/collections/aliases")
        with pytest.raises(IndexMismatchError, match="switched from books-g1 to books-g7"):
            live.write_manifest(MANIFEST)
        with pytest.raises(IndexMismatchError, match="switched from books-g1 to books-g7"):
            live.start_generation(4)
        grown.close()


def test_a_collection_of_the_plain_name_makes_room_for_the_alias(qdrant: Qdrant) -> None:
    qdrant.results["/aliases"] = {"aliases": []}
    qdrant.results["/collections"] = {"collections": [{"name": "books"}]}
    with open_books(qdrant.url) as live:
        grown = live.start_generation(4)
        qdrant.sent.clear()
        grown.make_live(MANIFEST)
        grown.close()
    assert writes(qdrant) == [
        "PATCH /collections/books-g2",
        "DELETE /collections/books",
        "POST /collections/aliases",
    ]
    (written,) = qdrant.to("PATCH", "/books-g2")
    # It is gone, so there is nothing to return to.
    assert json.loads(written.body["metadata"]["manifest"])["previous"] is None


def test_what_was_left_growing_is_removed_with_its_encoder(qdrant: Qdrant, tmp_path: Path) -> None:
    (tmp_path / "books-g4").mkdir()
    (tmp_path / "books-g1").mkdir()
    points_to(qdrant, "books-g1", "books-g4", "books-gone", "books-g04", "others-g4")
    with open_books(qdrant.url, models=str(tmp_path)) as live:
        qdrant.sent.clear()
        live.tidy()
    assert [sent.path for sent in qdrant.to("DELETE", "")] == ["/collections/books-g4"]
    assert [path.name for path in tmp_path.iterdir()] == ["books-g1"]


def test_a_generation_that_is_abandoned_is_erased(qdrant: Qdrant) -> None:
    with open_books(qdrant.url) as live:
        grown = live.start_generation(4)
        qdrant.sent.clear()
        grown.abandon()
        assert writes(qdrant) == ["DELETE /collections/books-g2"]
        assert qdrant.to("DELETE", "/books-g2")[0].query == "timeout=600"
        with pytest.raises(StoreError, match=r"books-g1 is live .*; it is not erased"):
            live.abandon()


def test_others_see_the_old_or_the_new_generation_and_nothing_between() -> None:
    with QdrantDouble() as double:
        with open_books(double.url) as live:
            live.write_manifest({**MANIFEST, "previous": None})
            grown = live.start_generation(4)
            with open_books(double.url) as other:
                assert other.generation == 1
            grown.make_live(MANIFEST)
            grown.close()
            # The store that served before goes on answering.
            assert live.count() == 0
        with open_books(double.url) as other:
            assert (other.generation, (other.read_manifest() or {})["previous"]) == (2, 1)
            with other.open_generation(1) as previous:
                assert previous.generation == 1
        assert double.count("POST /collections/aliases") == 2
