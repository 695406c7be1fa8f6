"""One protocol instance that one identity offers, the handlers behind it, and what their outcomes are for others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import (
    CODES,
    ApplicationError,
    BadRequest,
    CommandNotFound,
    HandlerFailed,
    InstanceNotFound,
    P2PError,
    PeerOffline,
    ProtocolNotFound,
)
from ..ipc.messages import (
    ApplicationErrorReply,
    DeliverCall,
    DeliverSession,
    ErrorReply,
    encode,
)
from ..keys import PublicKey
from ..limits import (
    MAX_HEADER,
    MAX_PAYLOAD,
)
from .handlers import RequestHandler, StreamHandler

__all__ = ["Outcome", "ServedBinding", "ServedBindings", "encode_error", "encode_exception"]

log = logging.getLogger(__name__)

Outcome: TypeAlias = tuple[bytes, bytes]
"""Header and payload of an answer."""

_MAX_KIND: Final = 128
_MAX_TEXT: Final = 4096
_encode_payload: Final = msgspec.msgpack.Encoder().encode


class ServedBinding:
    """One protocol instance that one identity offers, and the handlers behind it.

    Attributes:
        handlers: of requests, by command; that of requests without one has the command ``""``.
        streams: the handler of sessions, if there is one.
        turns: taken by each request while its handler runs; None where there is no limit.
        sessions: those whose handlers run.
        in_flight: handlers that run, including those that were cancelled and have not noticed yet.
    """

    __slots__ = (
        "concurrency_limit",
        "handlers",
        "identity",
        "in_flight",
        "instance",
        "key",
        "protocol",
        "sessions",
        "streams",
    )

    def __init__(
        self,
        identity: str,
        key: PublicKey,
        protocol: str,
        instance: str,
        handlers: Mapping[str, RequestHandler],
        streams: StreamHandler | None = None,
        concurrency: int | None = None,
    ) -> None:
        self.identity = identity
        self.key = key
        self.protocol = protocol
        self.instance = instance
        self.handlers = dict(handlers)
        self.streams = streams
        self.in_flight = 0
        self.sessions = 0
        self.concurrency_limit = asyncio.Semaphore(concurrency) if concurrency is not None else None

    def handler_of(self, command: str) -> RequestHandler:
        """
        Raises:
            CommandNotFound: there is none for this command.
            BadRequest: there is none for requests without a command.
        """
        handler = self.handlers.get(command)
        if handler is not None:
            return handler
        if command:
            raise CommandNotFound(peer=self.key.id52, protocol=self.protocol, command=command)
        reason = f"it takes no requests without a command; its commands: {', '.join(sorted(self.handlers))}"
        raise BadRequest(protocol=self.protocol, reason=reason if self.handlers else "it takes no requests")

    def handler_failed(self, reason: str) -> Outcome:
        return encode_error(HandlerFailed(peer=self.key.id52, protocol=self.protocol, reason=reason))


class ServedBindings:
    """Those of one process, by identity, protocol and instance.

    Attributes:
        closed: whether nothing is taken any more.
    """

    def __init__(self) -> None:
        self._bindings: dict[tuple[str, str, str], ServedBinding] = {}
        self.closed = False

    def __iter__(self) -> Iterator[ServedBinding]:
        return iter(self._bindings.values())

    def add(self, binding: ServedBinding) -> None:
        """Replaces one of the same name."""
        self._bindings[binding.identity, binding.protocol, binding.instance] = binding

    def remove(self, binding: ServedBinding) -> None:
        self._bindings.pop((binding.identity, binding.protocol, binding.instance), None)

    def find(self, message: DeliverCall | DeliverSession) -> ServedBinding | P2PError:
        """The binding that a message is for, or why there is none."""
        binding = self._bindings.get((message.identity, message.protocol, message.instance))
        if binding is not None and not self.closed:
            return binding
        offered = [binding for binding in self if binding.identity == message.identity]
        if not offered or self.closed:
            return PeerOffline(peer=message.identity)
        peer = offered[0].key.id52
        if any(binding.protocol == message.protocol for binding in offered):
            return InstanceNotFound(peer=peer, protocol=message.protocol, instance=message.instance)
        return ProtocolNotFound(peer=peer, protocol=message.protocol)


def encode_error(error: P2PError) -> Outcome:
    """The answer that names an error."""
    return encode(ErrorReply.of(error)), b""


def encode_exception(error: BaseException, binding: ServedBinding) -> Outcome:
    """What the caller is told about an exception; the log gets the rest."""
    name = type(error).__name__
    try:
        if isinstance(error, ApplicationError):
            header = encode(ApplicationErrorReply(str(error.kind)[:_MAX_KIND], str(error.message)[:_MAX_TEXT]))
            payload: Any = _encode_payload(error.payload)
            if len(payload) <= MAX_PAYLOAD:
                return header, payload
        elif isinstance(error, P2PError) and (known := CODES.get(error.code)) is not None:
            header, payload = encode_error(known(**{field: getattr(error, field) for field in known.names()}))
            if len(header) <= MAX_HEADER:
                return header, payload
    except BaseException as unfit:  # fields or a payload that cannot be encoded, texts that raise
        log.error("%s raised a %s that cannot be sent", binding.protocol, name, exc_info=unfit)
        return binding.handler_failed(name)
    log.error("%s (%s) of %s: uncaught %s", binding.protocol, binding.instance, binding.identity, name, exc_info=error)
    return binding.handler_failed(name)
