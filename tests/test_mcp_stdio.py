"""`retrieval mcp` over stdio: a real process, asked by the SDK's client."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from mcp import ClientSession

from pipelines import TwoStagePipeline
from tests.mcp_client import TEXTS, folder, talk, text_of

__all__ = ["folder"]


def test_a_whole_conversation(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def conversation(session: ClientSession) -> dict[str, Any]:
        tools = (await session.list_tools()).tools
        call = session.call_tool
        return {
            "tools": {tool.name: tool for tool in tools},
            "search": await call("search", {"query": "how does bread rise", "top_k": 2}),
            "first stage": await call("search", {"query": "moon tides", "rerank": False, "first_stage": "bm25"}),
            "filtered": await call(
                "search",
                {"query": "pipe", "where": '{"must": [{"key": "document_id", "match": {"value": "moon.md"}}]}'},
            ),
            "document": await call("get_document", {"id": "yeast.txt"}),
            "slice": await call("get_document", {"id": "long.txt", "offset": 5000, "length": 100}),
            "end": await call("get_document", {"id": "long.txt", "offset": 10**9}),
            "collections": await call("list_collections", {}),
        }

    seen = talk(["--index", folder / "index"], conversation, log)
    # Without --allow-ingest there is no tool that writes.
    assert sorted(seen["tools"]) == ["get_document", "list_collections", "search"]
    for tool in seen["tools"].values():
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.open_world_hint is False
        assert tool.output_schema["type"] == "object"
    assert seen["tools"]["search"].input_schema["required"] == ["query"]

    found = seen["search"].structured_content
    assert len(found["hits"]) == 2
    first = found["hits"][0]
    assert first["document_id"] == "yeast.txt"
    assert first["text"] == TEXTS["yeast.txt"]
    assert (first["rank"], first["start"], first["end"], first["cut"]) == (1, 0, len(TEXTS["yeast.txt"]), False)
    assert isinstance(first["rerank_score"], float)
    assert first["dense_rank"] == 1
    assert found["reranked"] > 0
    assert text_of(seen["search"]).startswith("[1] yeast")
    assert TEXTS["yeast.txt"] in text_of(seen["search"])

    plain = seen["first stage"].structured_content
    assert (plain["hits"][0]["document_id"], plain["reranked"], plain["stopped"]) == ("moon.md", 0, "off")
    assert plain["hits"][0]["rerank_score"] is None
    assert plain["hits"][0]["dense_rank"] is None
    assert plain["hits"][0]["bm25_rank"] == 1
    # A filter that comes as a string of JSON works like the object.
    assert [hit["document_id"] for hit in seen["filtered"].structured_content["hits"]] == ["moon.md"]

    assert seen["document"].structured_content["text"] == TEXTS["yeast.txt"]
    assert seen["document"].structured_content["next_offset"] is None
    part = seen["slice"].structured_content
    assert part["text"] == TEXTS["long.txt"][5000:5100]
    assert (part["offset"], part["end"], part["next_offset"], part["length"]) == (
        *(5000, 5100, 5100),
        len(TEXTS["long.txt"]),
    )
    assert "offset 5100" in text_of(seen["slice"])
    assert (seen["end"].structured_content["text"], seen["end"].structured_content["next_offset"]) == ("", None)

    (one,) = seen["collections"].structured_content["collections"]
    assert (one["name"], one["documents"], one["problem"]) == ("index", 4, None)
    assert one["encoder"].startswith("starter-static")
    assert one["quantization"] == "none"
    assert log.read_text(encoding="utf-8") == ""


def test_bad_input_is_answered_with_a_sentence_and_the_connection_goes_on(folder: Path) -> None:
    calls: list[tuple[str, Any, str]] = [
        ("search", {}, "query: is needed"),
        ("search", {"query": ""}, "query: String should have at least 1 character"),
        ("search", {"query": "x" * 5000}, "query: String should have at most 2000 characters"),
        ("search", {"query": "tides", "top_k": 51}, "top_k: should be less than or equal to 50"),
        ("search", {"query": "tides", "top_k": 0}, "top_k: should be greater than or equal to 1"),
        ("search", {"query": "tides", "min_score": "auto"}, "retrieval calibrate"),
        ("search", {"query": "tides", "min_score": 2}, "should be less than or equal to 1"),
        ("search", {"query": "tides", "budget_ms": -1}, "budget_ms: should be greater than 0"),
        ("search", {"query": "tides", "limit": 3}, "limit: there is no such argument; there are collection, query"),
        ("search", {"query": "tides", "where": "not json"}, "where: should be a valid dictionary"),
        ("search", {"query": "tides", "where": {"must": [{"key": "x"}]}}, "x"),
        ("search", {"query": "tides", "where": {"must": [{"key": "k" * 20_000}]}}, "use a shorter filter"),
        ("search", {"query": "tides", "collection": "other"}, "there is no collection 'other'; there are 'index'"),
        ("search", {"query": "tides", "first_stage": "sparse"}, "first_stage"),
        ("get_document", {"id": "nothing"}, "there is no document with the id 'nothing'"),
        ("get_document", {"id": "moon.md", "length": 10**9}, "length: should be less than or equal to 20000"),
        ("ingest", {"paths": ["."]}, "--allow-ingest"),
        ("nonsense", {}, "there is no tool 'nonsense'"),
    ]

    async def conversation(session: ClientSession) -> list[Any]:
        answers = [await session.call_tool(name, arguments) for name, arguments, _ in calls]
        return [*answers, await session.call_tool("search", {"query": "tides"})]

    *answers, last = talk(["--index", folder / "index"], conversation)
    for (name, arguments, expected), answer in zip(calls, answers, strict=True):
        assert answer.is_error, (name, arguments)
        assert expected in text_of(answer), (name, arguments)
    assert not last.is_error
    assert last.structured_content["hits"][0]["document_id"] == "moon.md"


def test_the_answer_is_bounded_however_much_is_asked_for(tmp_path: Path) -> None:
    documents = [
        {"id": f"d{number}", "text": "glacier " * 450 + str(number), "big": "x" * 5000, "small": number}
        for number in range(60)
    ]
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest(documents)

    async def conversation(session: ClientSession) -> Any:
        return await session.call_tool("search", {"query": "glacier", "top_k": 50, "rerank": False})

    answer = talk(["--index", tmp_path / "index"], conversation)
    hits = answer.structured_content["hits"]
    assert len(hits) == 50
    assert all(hit["cut"] and len(hit["text"]) == hit["end"] - hit["start"] == 800 for hit in hits)
    assert all(
        hit["metadata"] == {"small": int(hit["document_id"][1:]), "(left out, too long)": ["big"]} for hit in hits
    )
    assert len(text_of(answer)) < 60_000


def test_several_collections(folder: Path, tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "stars") as pipeline:
        pipeline.ingest([("sun", "The sun is a star.")])
    arguments = [f"--collection=texts={folder / 'index'}", f"--collection=stars={tmp_path / 'stars'}"]
    arguments.append(f"--collection=gone={tmp_path / 'gone'}")

    async def conversation(session: ClientSession) -> list[Any]:
        call = session.call_tool
        return [
            await call("search", {"query": "star"}),
            await call("search", {"query": "star", "collection": "stars"}),
            await call("search", {"query": "star", "collection": "gone"}),
            await call("list_collections", {}),
        ]

    log = tmp_path / "log"
    which, stars, gone, listed = talk(arguments, conversation, log)
    assert "collection is one of 'texts', 'stars', 'gone'" in text_of(which)
    assert [hit["document_id"] for hit in stars.structured_content["hits"]] == ["sun"]
    assert "there is no index in" in text_of(gone)
    problems = {one["name"]: one["problem"] for one in listed.structured_content["collections"]}
    assert problems["texts"] is problems["stars"] is None
    assert "there is no index" in problems["gone"]
    assert "retrieval ingest PATH" in log.read_text(encoding="utf-8")
    assert not (tmp_path / "gone").exists()


def test_the_index_is_free_between_calls_and_waited_for_when_it_is_not(folder: Path, tmp_path: Path) -> None:
    index = folder / "index"
    log = tmp_path / "log"

    async def conversation(session: ClientSession) -> tuple[Any, Any]:
        await session.call_tool("search", {"query": "tides"})
        # Idle for longer than --idle: another process may have it.
        await asyncio.sleep(0.5)
        with TwoStagePipeline.open(index) as pipeline:
            assert pipeline.manifest.documents == 4
            waiting = asyncio.ensure_future(session.call_tool("search", {"query": "tides"}))
            listed = await session.call_tool("list_collections", {})
            while "waiting" not in log.read_text(encoding="utf-8"):
                assert not waiting.done()
                await asyncio.sleep(0.02)
        return await waiting, listed

    found, listed = talk(["--index", index, "--idle", 0.1], conversation, log)
    assert not found.is_error
    assert found.structured_content["hits"][0]["document_id"] == "moon.md"
    assert listed.structured_content["collections"][0]["documents"] == 4
    assert "is in use by process" in log.read_text(encoding="utf-8")


def test_the_last_complete_state_is_searched_while_another_process_has_the_index(folder: Path, tmp_path: Path) -> None:
    index, log = tmp_path / "index", tmp_path / "log"
    shutil.copytree(folder / "index", index)
    with TwoStagePipeline.open(index, read_only=True):
        pass  # now there is a published state

    async def conversation(session: ClientSession) -> Any:
        return await session.call_tool("search", {"query": "tides"})

    with TwoStagePipeline.open(index):
        found = talk(["--index", index], conversation, log)
        refused = talk(["--index", index, "--allow-ingest", tmp_path, "--wait", 0.1], conversation)
    assert found.structured_content["hits"][0]["document_id"] == "moon.md"
    assert "another process has the index open; searching a copy of its state of" in log.read_text(encoding="utf-8")
    assert "is in use by process" in text_of(refused)


def test_an_index_that_stays_busy_is_an_answer(folder: Path) -> None:
    async def conversation(session: ClientSession) -> Any:
        return await session.call_tool("search", {"query": "tides"})

    with TwoStagePipeline.open(folder / "index"):
        answer = talk(["--index", folder / "index", "--wait", 0.1], conversation)
    assert answer.is_error
    assert "is in use by process" in text_of(answer)


def test_calls_while_another_runs_are_answered_in_turn(folder: Path) -> None:
    async def conversation(session: ClientSession) -> list[Any]:
        return await asyncio.gather(
            *(session.call_tool("search", {"query": f"glaciers {number}", "top_k": 1}) for number in range(5))
        )

    answers = talk(["--index", folder / "index"], conversation)
    assert [answer.structured_content["hits"][0]["document_id"] for answer in answers] == ["long.txt"] * 5
