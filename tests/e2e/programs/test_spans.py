"""Spans of a call over two daemons: the caller's and the handler's are one trace, and carry the request id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fastn_p2p_client import ApplicationError, Client
from fastn_p2p_client.call_context import CallContext
from fastn_p2p_client.errors import HandlerFailed, ProtocolNotFound
from fastn_p2p_client.serving.server import Server
from fastn_p2p_client.session.session import Session
from tests.support.serving_programs import serving
from tests.support.two_daemons import TwoDaemons, until

pytestmark = pytest.mark.asyncio_loop


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """This program has a tracer provider, until the test ends."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
async def traced(daemons: TwoDaemons) -> AsyncIterator[None]:
    """bob's program serves Traced."""
    server = Server("bob", daemons.two.home)

    @server.handle_requests("Traced", access="everyone")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    @server.handle_requests("Traced", command="in-thread", access="everyone")
    def see(_: None, call: CallContext) -> str:
        return f"{trace.get_current_span().get_span_context().trace_id:032x} {call.request_id}"

    @server.handle_requests("Traced", command="refuse", access="everyone")
    async def refuse(_: None) -> None:
        raise ApplicationError("TooLong", "secret")

    @server.handle_requests("Traced", command="crash", access="everyone")
    async def crash(_: None) -> None:
        raise RuntimeError("secret")

    @server.handle_streams("Traced", access="everyone")
    async def stream(session: Session) -> None:
        await session.write(b"x")

    async with serving(server):
        yield


async def pair(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, ReadableSpan]:
    """Return the two spans that have ended, the caller's first, and forget them."""
    await until(lambda: len(exporter.get_finished_spans()) >= 2, "both spans have ended")
    found = {span.kind: span for span in exporter.get_finished_spans()}
    exporter.clear()
    caller, handler = found[SpanKind.CLIENT], found[SpanKind.SERVER]
    assert caller.context is not None
    assert handler.context is not None
    assert handler.parent is not None
    assert handler.context.trace_id == caller.context.trace_id
    assert handler.parent.span_id == caller.context.span_id
    assert caller.attributes is not None
    assert handler.attributes is not None
    for name in ("rpc.system", "rpc.service", "rpc.method", "fastn_p2p.request_id"):
        assert handler.attributes[name] == caller.attributes[name]
    assert "secret" not in caller.to_json() + handler.to_json()
    return caller, handler


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.mark.usefixtures("traced")
async def test_a_call_and_its_handler_are_one_trace(
    daemons: TwoDaemons, client: Client, exporter: InMemorySpanExporter
) -> None:
    assert await client.call("alice", daemons.bob, "Traced", request=[1, 2]) == 3
    caller, handler = await pair(exporter)
    assert caller.name == handler.name == "Traced/request"
    assert attributes(caller)["server.address"] == daemons.bob
    assert attributes(handler)["client.address"] == daemons.alice
    assert caller.parent is None

    with trace.get_tracer("tests").start_as_current_span("outer") as outer:
        told = await client.call(
            "alice", daemons.bob, "Traced", command="in-thread", request_id="order-1", retry=True, returns=str
        )
        assert told == f"{outer.get_span_context().trace_id:032x} order-1"
    found = [span for span in exporter.get_finished_spans() if span.name != "outer"]
    assert {span.name for span in found} == {"Traced/in-thread"}
    assert {attributes(span)["fastn_p2p.request_id"] for span in found} == {"order-1"}


@pytest.mark.usefixtures("traced")
async def test_spans_say_how_a_call_has_failed(
    daemons: TwoDaemons, client: Client, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(ApplicationError):
        await client.call("alice", daemons.bob, "Traced", command="refuse")
    caller, handler = await pair(exporter)
    assert (caller.status.status_code, handler.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert attributes(caller)["error.type"] == attributes(handler)["error.type"] == "TooLong"

    with pytest.raises(HandlerFailed):
        await client.call("alice", daemons.bob, "Traced", command="crash")
    caller, handler = await pair(exporter)
    assert (caller.status.status_code, handler.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert (attributes(caller)["error.type"], attributes(handler)["error.type"]) == ("handler-failed", "RuntimeError")

    with pytest.raises(ProtocolNotFound) as failed:
        await client.call("alice", daemons.bob, "Nothing")
    (caller,) = exporter.get_finished_spans()
    assert attributes(caller)["error.type"] == "protocol-not-found"
    assert attributes(caller)["fastn_p2p.request_id"] == failed.value.request_id


@pytest.mark.usefixtures("traced")
async def test_a_session_and_its_handler_are_one_trace(
    daemons: TwoDaemons, client: Client, exporter: InMemorySpanExporter
) -> None:
    async with await client.connect("alice", daemons.bob, "Traced") as session:
        assert [chunk async for chunk in session] == [b"x"]
    caller, handler = await pair(exporter)
    assert caller.name == handler.name == "Traced/session"
    assert attributes(handler)["fastn_p2p.request_id"] == session.request_id
