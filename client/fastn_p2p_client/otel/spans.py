"""Spans of calls and sessions, with the attributes of the semantic conventions for RPC.

Requests and replies are not in them, and of errors only codes and kinds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..errors import ApplicationError, P2PError
from ..ipc.messages import DeliverCall, DeliverSession
from ..keys import id52_of
from ..limits import MAX_NAME

T = TypeVar("T")

REQUEST: Final = "request"
"""Method of a call without a command."""
SESSION: Final = "session"
"""Method of a session."""
_TRACER: Final = "fastn_p2p_client"
_SYSTEM: Final = "fastn-p2p"
_TRACEPARENT: Final = "traceparent"
_propagator: Final = TraceContextTextMapPropagator()


@contextmanager
def calling(target: tuple[str, str, str, str], method: str, request_id: str) -> Iterator[str]:
    """Make the span of a call, or of the opening of a session, and yield the ``traceparent`` to send with it.

    Args:
        target: identity, peer, protocol and instance, as in ``messages.Call``.
        method: the command, ``REQUEST`` or ``SESSION``.
    """
    _, peer, protocol, instance = target
    attributes = _attributes(protocol, instance, method, request_id)
    if len(peer) <= MAX_NAME:  # not a ticket
        attributes["server.address"] = peer
    with _span(SpanKind.CLIENT, attributes, None):
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        yield carrier.get(_TRACEPARENT, "")


async def served(message: DeliverCall | DeliverSession, request_id: str, handler: Awaitable[T]) -> T:
    """Run a handler in the span of its call or session. Its parent is the span of the caller, if that sent one."""
    method = SESSION if isinstance(message, DeliverSession) else message.command or REQUEST
    attributes = _attributes(message.protocol, message.instance, method, request_id)
    attributes["client.address"] = id52_of(message.peer)
    attributes["fastn_p2p.path"] = message.path
    parent = _propagator.extract({_TRACEPARENT: message.traceparent}) if message.traceparent else Context()
    with _span(SpanKind.SERVER, attributes, parent, answer=ApplicationError):
        return await handler


def _attributes(protocol: str, instance: str, method: str, request_id: str) -> dict[str, str]:
    return {
        "rpc.system": _SYSTEM,
        "rpc.service": protocol,
        "rpc.method": method,
        "fastn_p2p.instance": instance,
        "fastn_p2p.request_id": request_id,
    }


@contextmanager
def _span(
    kind: SpanKind,
    attributes: Mapping[str, str],
    parent: Context | None,
    answer: type[Exception] | tuple[()] = (),
) -> Iterator[None]:
    """Make a span for the time of the block, with the error that ends it.

    Args:
        answer: exception that is an answer on purpose, and no failure.
    """
    with trace.get_tracer(_TRACER).start_as_current_span(
        f"{attributes['rpc.service']}/{attributes['rpc.method']}",
        parent,
        kind,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", _type_of(error))
            if not isinstance(error, answer):
                span.set_status(Status(StatusCode.ERROR))
            raise


def _type_of(error: BaseException) -> str:
    if isinstance(error, P2PError):
        return error.code
    return error.kind if isinstance(error, ApplicationError) else type(error).__name__
