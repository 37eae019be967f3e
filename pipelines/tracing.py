"""OpenTelemetry spans for the stages of ingest and search; nothing at all where nobody collects them.

Spans carry counts and names of settings, never the text of a query or a document, and no messages of errors, which may
quote both. Whoever configures a tracer provider in this process gets the spans; `start_tracing` configures one from the
``OTEL_*`` variables of the environment.
"""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from retrieval import __version__
from retrieval.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Value = bool | int | float | str

SCOPE = "two-stage-retrieval"
"""Instrumentation scope of all spans."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_latest: tuple[object, Tracer | None] = (None, None)


class Span:
    """A stage that is under way; this one records nothing."""

    __slots__ = ()

    def set(self, **attributes: Value) -> None:
        """Add attributes; each gets the prefix ``retrieval.``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NOTHING = Span()


def span(name: str, **attributes: Value) -> Span:
    """A span named ``retrieval.NAME``, current within its ``with`` block; an error that leaves the block marks it.

    Args:
        name: Name of the stage.
        attributes: Counts and settings; each gets the prefix ``retrieval.``.

    Returns:
        One that records nothing while no tracer provider is configured.
    """
    tracer = current_tracer()
    return _NOTHING if tracer is None else _Recorded(tracer, name, attributes)


def traced(name: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Every call of the decorated function is a `span` of that name."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            with span(name):
                return function(*args, **kwargs)

        return run

    return decorate


def carry(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function, to be called once on another thread with the context of this one: its spans have this parent."""
    return partial(contextvars.copy_context().run, function)


def current_tracer() -> Tracer | None:
    """The tracer of the provider that is configured in this process, ``None`` while there is none."""
    global _latest
    # Who configures a provider imports this module; nobody else pays for importing it.
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if provider is not _latest[0]:
        placeholder = isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider)
        _latest = provider, None if placeholder else provider.get_tracer(SCOPE, __version__)
    return _latest[1]


def start_tracing(service: str) -> bool:
    """Send spans to where the environment says, unless a tracer provider is configured already.

    ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``..._TRACES_ENDPOINT``) names a collector that takes OTLP over HTTP;
    ``OTEL_TRACES_EXPORTER`` is ``otlp``, ``console`` (stderr) or ``none``. The other standard variables hold:
    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER``, ``OTEL_SDK_DISABLED``. What is not
    sent yet is sent when the process exits.

    Args:
        service: ``service.name`` where the environment gives none.

    Returns:
        Whether this call configured a provider.

    Raises:
        MissingExtraError: The environment asks for traces and the packages are not installed.
        ConfigError: It asks for an exporter or protocol that is not supported.
    """
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not exporter and any(os.environ.get(name) for name in _ENDPOINTS):
        exporter = "otlp"
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or exporter in {"", "none"} or current_tracer() is not None:
        return False
    if exporter not in {"otlp", "console"}:
        raise ConfigError(f"OTEL_TRACES_EXPORTER is otlp, console or none, not {exporter!r}")
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ImportError as error:
        raise MissingExtraError("opentelemetry-sdk", "tracing", f"OTEL_TRACES_EXPORTER={exporter}") from error
    # What the environment says comes on top of what is given here, but for a name that it leaves unknown.
    named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or os.environ.get("OTEL_SERVICE_NAME")
    resource = Resource.create({} if named else {SERVICE_NAME: service})
    provider = TracerProvider(resource=resource)
    destination = ConsoleSpanExporter(out=sys.stderr) if exporter == "console" else _otlp_exporter()
    provider.add_span_processor(BatchSpanProcessor(destination))
    trace.set_tracer_provider(provider)
    return True


class _Recorded(Span):
    __slots__ = ("_attributes", "_current", "_name", "_span", "_tracer")

    def __init__(self, tracer: Tracer, name: str, attributes: dict[str, Value]) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes(_prefixed(attributes))

    def __enter__(self) -> Self:
        self._current = self._tracer.start_as_current_span(
            f"retrieval.{self._name}",
            attributes=_prefixed(self._attributes),
            record_exception=False,
            set_status_on_exception=False,
        )
        self._span = self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", kind.__qualname__)
            self._span.set_status(Status(StatusCode.ERROR))
        self._current.__exit__(kind, error, trace)


def _prefixed(attributes: dict[str, Value]) -> dict[str, Value]:
    return {f"retrieval.{name}": value for name, value in attributes.items()}


def _otlp_exporter() -> Any:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", "http/protobuf"}:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf here, not {protocol!r}; collectors take it on port 4318"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingExtraError("opentelemetry-exporter-otlp-proto-http", "tracing", "sending traces") from error
    return OTLPSpanExporter()
