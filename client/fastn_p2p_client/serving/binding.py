"""Bindings that this process serves, and the encoding of what their handlers return and raise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

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
from ..ipc.messages import ApplicationErrorReply, DeliverCall, DeliverSession, ErrorReply, HomeChanged, encode
from ..keys import PublicKey
from ..limits import MAX_HEADER, MAX_PAYLOAD
from ..protocol import ANY_COMMAND
from .handlers import RequestHandler, StreamHandler

if TYPE_CHECKING:
    from ..claims.call_claims import CallClaims, Outcome

log = logging.getLogger(__name__)

_MAX_KIND: Final = 128
"""Characters of the kind of an application error. Longer ones are cut."""
_MAX_TEXT: Final = 4096
"""Characters of the message of an application error. Longer ones are cut."""
_encode_payload: Final = msgspec.msgpack.Encoder().encode


class ServedBinding:
    """Binding that this process serves: one protocol instance of one identity, with its handlers.

    Attributes:
        identity, protocol, instance: names of the binding.
        key: public key of the identity.
        handlers: handlers of requests by command; ``""`` stands for requests without a command, ``"*"`` for those
            that have no handler of their own.
        streams: handler of sessions, if there is one.
        forward: handler that passes all requests on, if there is one.
        concurrency_limit: held by each request while its handler runs; None for no limit.
        in_flight: handlers of requests that run, including cancelled ones that have not ended yet.
        sessions: handlers of sessions that run.
        on_home: called with the name of the daemon that is the binding's home; empty for this one.
        claims: claims its retried calls; None where they are not claimed.
    """

    __slots__ = (
        "claims",
        "concurrency_limit",
        "forward",
        "handlers",
        "identity",
        "in_flight",
        "instance",
        "key",
        "on_home",
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
        self.on_home: Callable[[str], object] = lambda _: None
        self.claims: CallClaims | None = None
        self.protocol = protocol
        self.instance = instance
        self.handlers = dict(handlers)
        self.forward = next((each.call for each in self.handlers.values() if each.forwards), None)
        self.streams = streams
        self.in_flight = 0
        self.sessions = 0
        self.concurrency_limit = asyncio.Semaphore(concurrency) if concurrency is not None else None

    def open_claims(self, url: str) -> None:
        """Claim retried calls in a store from now on; in none if the URL is empty. Raises ValueError."""
        if url:
            from ..claims.call_claims import CallClaims
            from ..claims.claims_url import parse_claims

            store = parse_claims(url).open(f"fastn-p2p {self.identity} claims")
            self.claims = CallClaims(self.key, self.protocol, self.instance, store)

    async def close_claims(self) -> None:
        """End the connection to the store of claims."""
        claims, self.claims = self.claims, None
        if claims is not None:
            await claims.close()

    def handler_of(self, command: str) -> RequestHandler:
        """Return the handler of a command; ``""`` stands for requests without a command.

        Raises:
            CommandNotFound: there is no handler for the command.
            BadRequest: there is no handler for requests without a command.
        """
        handler = self.handlers.get(command) or self.handlers.get(ANY_COMMAND)
        if handler is not None:
            return handler
        if command:
            raise CommandNotFound(peer=self.key.id52, protocol=self.protocol, command=command)
        reason = f"it takes no requests without a command; its commands: {', '.join(sorted(self.handlers))}"
        raise BadRequest(protocol=self.protocol, reason=reason if self.handlers else "it takes no requests")

    def handler_failed(self, reason: str) -> Outcome:
        """Return the answer ``HandlerFailed`` with this reason."""
        return encode_error(HandlerFailed(peer=self.key.id52, protocol=self.protocol, reason=reason))


class ServedBindings:
    """Bindings of this process, by identity, protocol and instance.

    Attributes:
        closed: whether all further requests and sessions are rejected.
    """

    def __init__(self) -> None:
        self._bindings: dict[tuple[str, str, str], ServedBinding] = {}
        self.closed = False

    def __iter__(self) -> Iterator[ServedBinding]:
        return iter(self._bindings.values())

    def add(self, binding: ServedBinding) -> None:
        """Add a binding, in place of one with the same names."""
        self._bindings[binding.identity, binding.protocol, binding.instance] = binding

    def remove(self, binding: ServedBinding) -> None:
        """Remove the binding with these names."""
        self._bindings.pop((binding.identity, binding.protocol, binding.instance), None)

    def find(self, message: DeliverCall | DeliverSession | HomeChanged) -> ServedBinding | P2PError:
        """Return the binding that a message is for, or the error to answer with."""
        binding = self._bindings.get((message.identity, message.protocol, message.instance))
        if binding is not None and not self.closed:
            return binding
        same_identity = [binding for binding in self if binding.identity == message.identity]
        if not same_identity or self.closed:
            return PeerOffline(peer=message.identity)
        peer = same_identity[0].key.id52
        if any(binding.protocol == message.protocol for binding in same_identity):
            return InstanceNotFound(peer=peer, protocol=message.protocol, instance=message.instance)
        return ProtocolNotFound(peer=peer, protocol=message.protocol)


def encode_error(error: P2PError) -> Outcome:
    """Encode an error as the answer to a request."""
    return encode(ErrorReply.of(error)), b""


def encode_exception(error: BaseException, binding: ServedBinding) -> Outcome:
    """Encode an exception of a handler as the answer to a request.

    The caller gets an ``ApplicationError`` or ``P2PError`` as it is, and only the class's name of another exception:
    its text may contain secrets. The log gets all of it.
    """
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
    except BaseException as unfit:  # fields or a payload that cannot be encoded, or texts that raise
        log.error("%s raised a %s that cannot be sent", binding.protocol, name, exc_info=unfit)
        return binding.handler_failed(name)
    log.error("%s (%s) of %s: uncaught %s", binding.protocol, binding.instance, binding.identity, name, exc_info=error)
    return binding.handler_failed(name)
