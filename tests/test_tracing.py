from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipelines import TwoStagePipeline, tracing
from pipelines.tracing import carry, span
from pipelines.tracing_http import trace_requests
from retrieval.config import Config, MemoryStoreConfig
from retrieval.datatypes import Document
from retrieval.errors import ConfigError, StoreError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Spans in the order in which they began; the provider is that of this test only."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield lambda: sorted(exporter.get_finished_spans(), key=lambda one: one.start_time or 0)
    provider.shutdown()


@pytest.fixture
def pipeline(corpus: list[Document]) -> Iterator[TwoStagePipeline]:
    with TwoStagePipeline.open(config=Config(store=MemoryStoreConfig())) as pipeline:
        pipeline.ingest(corpus)
        yield pipeline


def tree(spans: Sequence[ReadableSpan]) -> list[tuple[str, str | None]]:
    """Each span with the name of its parent."""
    names = {one.context.span_id: one.name for one in spans if one.context is not None}
    return [(one.name, names[one.parent.span_id] if one.parent else None) for one in spans]


def attributes(spans: Sequence[ReadableSpan], name: str) -> dict[str, Any]:
    return dict(next(one for one in spans if one.name == name).attributes or {})


def test_a_search_shows_its_stages(pipeline: TwoStagePipeline, collected: Callable[[], list[ReadableSpan]]) -> None:
    results = pipeline.search("copper pipe leak", top_k=2, depth=3)
    spans = collected()
    assert tree(spans) == [
        ("retrieval.search", None),
        *((f"retrieval.{stage}", "retrieval.search") for stage in ("encode", "retrieve", "fuse", "rerank")),
        ("retrieval.load", "retrieval.rerank"),
    ]
    assert attributes(spans, "retrieval.search") == {
        "retrieval.queries": 1,
        "retrieval.first_stage": "hybrid",
        "retrieval.top_k": 2,
    }
    assert attributes(spans, "retrieval.retrieve") == {"retrieval.requests": 2, "retrieval.candidates": 100}
    assert attributes(spans, "retrieval.rerank") == {
        "retrieval.queries": 1,
        "retrieval.depth": 3,
        "retrieval.reranked": results.reranked,
        "retrieval.stopped": results.stopped,
    }
    assert {one.instrumentation_scope.name for one in spans if one.instrumentation_scope} == {"two-stage-retrieval"}


def test_queries_of_many_are_reranked_together_and_loaded_one_by_one(
    pipeline: TwoStagePipeline, collected: Callable[[], list[ReadableSpan]]
) -> None:
    pipeline.search_many(["copper pipe", "bright star", "sour bread"])
    spans = collected()
    counted = Counter(one.name.removeprefix("retrieval.") for one in spans)
    assert counted == {"search": 1, "encode": 1, "retrieve": 1, "fuse": 1, "rerank": 1, "load": 3}
    assert attributes(spans, "retrieval.rerank")["retrieval.queries"] == 3


def test_an_ingest_shows_its_batches(corpus: list[Document], collected: Callable[[], list[ReadableSpan]]) -> None:
    with TwoStagePipeline.open(config=Config(store=MemoryStoreConfig())) as pipeline:
        pipeline.ingest(corpus)
    spans = collected()
    shown = tree(spans)
    assert shown[0] == ("retrieval.ingest", None)
    assert ("retrieval.prepare", "retrieval.ingest") in shown
    assert ("retrieval.batch", "retrieval.ingest") in shown
    assert ("retrieval.encode", "retrieval.ingest") in shown
    assert ("retrieval.upsert", "retrieval.batch") in shown
    assert ("retrieval.commit", "retrieval.ingest") in shown
    assert attributes(spans, "retrieval.upsert") == {"retrieval.passages": 12}


def test_no_text_leaves_the_process(corpus: list[Document], collected: Callable[[], list[ReadableSpan]]) -> None:
    with TwoStagePipeline.open(config=Config(store=MemoryStoreConfig())) as pipeline:
        pipeline.ingest(corpus)
        pipeline.search("copper pipe leak secret-query")
    told = "".join(one.to_json() for one in collected())
    words = {word for document in corpus for word in document.text.split()} | {"secret-query"}
    assert told.count('"retrieval.rerank"') == 1
    assert not words & set(re.findall(r"[\w-]+", told))


def test_an_error_marks_its_span_without_its_message(
    pipeline: TwoStagePipeline, collected: Callable[[], list[ReadableSpan]]
) -> None:
    with pytest.raises(StoreError, match="secret-key"):
        pipeline.search("copper", where={"must": [{"key": "metadata.topic", "match": {"secret-key": 1}}]})
    failed = [one for one in collected() if one.status.status_code is trace.StatusCode.ERROR]
    assert [one.name for one in failed] == ["retrieval.search", "retrieval.retrieve"]
    for one in failed:
        assert dict(one.attributes or {})["error.type"] == "StoreInputError"
        assert not one.events
        assert "secret-key" not in one.to_json()


def test_a_search_on_the_worker_thread_keeps_its_parent(
    pipeline: TwoStagePipeline, collected: Callable[[], list[ReadableSpan]]
) -> None:
    async def ask() -> None:
        with span("request"):
            await pipeline.asearch("copper pipe")

    asyncio.run(ask())
    assert ("retrieval.search", "retrieval.request") in tree(collected())


def test_a_carried_function_has_the_context_of_its_maker(collected: Callable[[], list[ReadableSpan]]) -> None:
    def work(value: int) -> None:
        with span("work", value=value):
            pass

    with span("parent"):
        with_context, without = carry(work), work
    for function in (with_context, without):
        thread = threading.Thread(target=function, args=(7,))
        thread.start()
        thread.join()
    shown = tree(collected())
    assert shown == [("retrieval.parent", None), ("retrieval.work", "retrieval.parent"), ("retrieval.work", None)]


def test_without_a_provider_nothing_is_recorded() -> None:
    one = span("search", queries=1)
    assert type(one) is tracing.Span
    assert one is span("rerank")
    with one as entered:
        entered.set(reranked=3)


PROGRAM = """
import sys
{block}
from pipelines import TwoStagePipeline
from retrieval.config import Config, MemoryStoreConfig
with TwoStagePipeline.open(config=Config(store=MemoryStoreConfig())) as pipeline:
    pipeline.ingest([("a", "copper pipe"), ("b", "bright star")])
    print(pipeline.search("pipe")[0].document_id, "opentelemetry.trace" in sys.modules)
"""
BLOCK = "sys.modules['opentelemetry'] = None"


@pytest.mark.parametrize("block", ["", BLOCK], ids=["installed", "not installed"])
def test_a_search_neither_needs_nor_imports_it(block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(block=block)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == ("a False", "")


START = """
import sys
{block}
from pipelines.tracing import span, start_tracing
print(start_tracing("retrieval-test"), start_tracing("again"))
with span("outer", passages=3), span("inner"):
    pass
"""


def start(environment: dict[str, str], block: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", START.format(block=block)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"},
    ],
)
def test_the_environment_may_ask_for_nothing(environment: dict[str, str]) -> None:
    done = start(environment)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_the_console_shows_spans_on_stderr() -> None:
    done = start({"OTEL_TRACES_EXPORTER": "console", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"})
    assert done.stdout == "True False\n"
    decoder, text, spans = json.JSONDecoder(), done.stderr, []
    while text.strip():
        one, end = decoder.raw_decode(text := text.lstrip())
        spans.append(one)
        text = text[end:]
    assert [one["name"] for one in spans] == ["retrieval.inner", "retrieval.outer"]
    assert spans[0]["parent_id"] == spans[1]["context"]["span_id"]
    assert spans[1]["attributes"] == {"retrieval.passages": 3}
    resource = spans[0]["resource"]["attributes"]
    assert (resource["service.name"], resource["deployment.environment"]) == ("retrieval-test", "test")


class _Collector(BaseHTTPRequestHandler):
    received: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_collector_gets_spans_over_http_with_the_name_of_the_environment() -> None:
    received: list[tuple[str, str, bytes]] = []
    handler = type("Handler", (_Collector,), {"received": received})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = start(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
                "OTEL_SERVICE_NAME": "named-by-environment",
            }
        )
        server.shutdown()
    assert (done.stdout, done.stderr) == ("True False\n", "")
    assert [(path, kind) for path, kind, _ in received] == [("/v1/traces", "application/x-protobuf")]
    for word in (b"retrieval.outer", b"retrieval.inner", b"named-by-environment"):
        assert word in received[0][2]
    assert b"retrieval-test" not in received[0][2]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is otlp, console or none, not 'zipkin'"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "is http/protobuf here, not 'grpc'",
        ),
    ],
)
def test_what_is_not_supported(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        tracing.start_tracing("retrieval")


def test_the_packages_are_asked_for_by_name() -> None:
    done = start({"OTEL_TRACES_EXPORTER": "console"}, BLOCK)
    assert done.returncode == 1
    assert "pip install 'two-stage-retrieval[tracing]'" in done.stderr


def command(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", **environment},
        timeout=120,
    )


def test_every_command_can_be_traced(tmp_path: Path) -> None:
    (tmp_path / "pipe.txt").write_text("copper pipe", encoding="utf-8")
    index = str(tmp_path / "index")
    done = command(
        {"OTEL_TRACES_EXPORTER": "console"}, "ingest", str(tmp_path / "pipe.txt"), "--index", index, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] == 1
    for name in ("ingest", "prepare", "batch", "encode", "upsert", "commit"):
        assert f'"name": "retrieval.{name}"' in done.stderr
    assert '"service.name": "retrieval"' in done.stderr
    refused = command({"OTEL_TRACES_EXPORTER": "zipkin"}, "info", "--index", index)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "otlp, console or none" in refused.stderr


class Route:
    path = "/v1/documents/{id}"


def ask(
    path: str, *, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = (), error: Exception | None = None
) -> list[Any]:
    """What an application behind the middleware sends; it knows one route."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if path.startswith("/v1/documents/"):
            scope["route"] = Route
        with span("work"):
            pass
        await send({"type": "http.response.start", "status": status, "headers": []})
        if error is not None:
            raise error
        await send({"type": "http.response.body", "body": b"done"})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": list(headers)}
    asyncio.run(trace_requests(app, {"/v1/embeddings"})(scope, None, send))  # type: ignore[arg-type]
    return sent


def test_a_request_is_a_span_with_the_parent_of_its_headers(collected: Callable[[], list[ReadableSpan]]) -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = ask("/v1/documents/secret-name", headers=[(b"traceparent", parent)])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    request, work = collected()
    assert (request.name, request.kind) == ("GET /v1/documents/{id}", trace.SpanKind.SERVER)
    assert (request.context.trace_id, request.parent.span_id) == (  # type: ignore[union-attr]
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
    )
    assert work.parent == request.context
    assert dict(request.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/v1/documents/{id}",
    }
    assert "secret-name" not in request.to_json()


@pytest.mark.parametrize(("path", "name"), [("/v1/embeddings", "GET /v1/embeddings"), ("/secret", "GET")])
def test_only_known_paths_are_told(path: str, name: str, collected: Callable[[], list[ReadableSpan]]) -> None:
    ask(path)
    assert collected()[0].name == name


@pytest.mark.parametrize(("status", "code"), [(404, trace.StatusCode.UNSET), (503, trace.StatusCode.ERROR)])
def test_failures_of_the_server_are_marked(
    status: int, code: trace.StatusCode, collected: Callable[[], list[ReadableSpan]]
) -> None:
    ask("/", status=status)
    assert collected()[0].status.status_code is code


def test_an_error_of_the_application_goes_on(collected: Callable[[], list[ReadableSpan]]) -> None:
    with pytest.raises(ValueError, match="secret"):
        ask("/", error=ValueError("secret"))
    request = collected()[0]
    assert request.status.status_code is trace.StatusCode.ERROR
    assert dict(request.attributes or {})["error.type"] == "ValueError"
    assert "secret" not in request.to_json()


def test_what_machines_ask_every_few_seconds_is_left_out(collected: Callable[[], list[ReadableSpan]]) -> None:
    assert len(ask("/health")) == 2
    assert tree(collected()) == [("retrieval.work", None)]


def test_requests_pass_where_nothing_is_collected() -> None:
    assert [message["type"] for message in ask("/")] == ["http.response.start", "http.response.body"]
