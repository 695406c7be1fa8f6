"""One binding that a program serves because its owner has said so: followed through its life."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from ..client import Client
from ..errors import (
    BindingNotFound,
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    DeadlineExceeded,
    InvalidConfig,
    Overloaded,
    P2PError,
)
from ..ipc import messages as m
from ..keys import PublicKey
from ..protocol import (
    BindingContext,
    Protocol,
    effective_access,
)
from .handlers import RequestHandler, StreamHandler
from .protocol_lifecycle import (
    MAX_REASON,
    CompiledHandlers,
    ProtocolLifecycle,
)
from .registration import (
    BindingRegistration,
    Registrar,
)

__all__ = ["AWAY", "FollowedBinding", "ProtocolHandlers"]

AWAY: Final = (DaemonNotRunning, DaemonBusy, ConnectionLost, DeadlineExceeded, Overloaded)
"""What is raised while the daemon, or one of its processes, is not there: it says nothing about the binding."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ProtocolHandlers:
    """What a program does for one protocol: a class, or plain handlers."""

    protocol: str
    code: type[Protocol] | None = None
    requests: dict[str, RequestHandler] = field(default_factory=dict)
    """By command, as in ``ServedBinding``."""
    streams: StreamHandler | None = None
    concurrency: int | None = None
    queue: int = 1024


class FollowedBinding:
    """Made before anything is known of it but its name; ``reconcile`` does the rest.

    Attributes:
        offered: what the network is told, while it is served.
        failure: why it is not served although it should be; empty otherwise.
    """

    def __init__(
        self, client: Client, service: Registrar, served: ProtocolHandlers, identity: str, instance: str
    ) -> None:
        self.identity = identity
        self.instance = instance
        self.offered: BindingRegistration | None = None
        self.failure = ""
        self._client = client
        self._service = service
        self._served = served
        self._life: ProtocolLifecycle | None = None
        self._version = b""
        """Of what is served, or has failed."""

    async def reconcile(self, info: m.BindingInfo | None) -> None:
        """Be as the owner wants it; None: there is nothing of it any more.

        Raises:
            P2PError: one of ``AWAY``; then it is to be said again.
        """
        try:
            if info is None or info.leaving or not info.online:
                await self.end(delete=info is not None and info.leaving)
            elif info.version != self._version:
                await (self._start() if self.offered is None else self._reload(self.offered))
        except BindingNotFound:
            await self.end()  # it has been removed meanwhile: that will be said
        except AWAY:
            raise
        except P2PError as error:
            self.set_failure(error)
            if info is not None:
                self._version = info.version

    async def end(self, *, delete: bool = False) -> None:
        """Serve it no more; what is in flight is finished first."""
        offered, self.offered = self.offered, None
        life, self._life = self._life, None
        self._version, self.failure = b"", ""
        if offered is not None:
            await self._service.withdraw(offered)
        if life is not None:
            await life.stop(delete=delete)

    def set_failure(self, error: P2PError) -> None:
        """It is not served, or not as its owner wants it."""
        self.failure = str(error)[:MAX_REASON]
        log.error("%s is not served%s: %s", self, "" if self.offered is None else " as its owner wants it", error)

    def __str__(self) -> str:
        return f"{self._served.protocol} ({self.instance}) of {self.identity}"

    async def _start(self) -> None:
        served = self._served
        reply, config = await self._ask()
        handlers = await self._begin(reply, config)
        offered = BindingRegistration(
            self.identity,
            served.protocol,
            self.instance,
            effective_access(served.code, reply.allow),
            handlers.requests,
            handlers.streams,
            served.concurrency,
            served.queue,
        )
        try:
            await self._service.offer(offered)
        except P2PError:
            if self._life is not None:
                await self._life.stop()
            raise
        self.offered, self._version, self.failure = offered, reply.version, ""

    async def _reload(self, offered: BindingRegistration) -> None:
        """Of a class, the instance that runs is given the new config; handlers are given a new context."""
        reply, config = await self._ask()
        if self._life is not None:
            await self._life.reload(config)
        elif offered.binding is not None:
            offered.binding.handlers, offered.binding.streams = self._compiled(self._context(reply), config)
        offered.access = effective_access(self._served.code, reply.allow)
        await self._service.grant(offered)
        self._version, self.failure = reply.version, ""

    async def _begin(self, reply: m.BindingReply, config: bytes) -> CompiledHandlers:
        context = self._context(reply)
        code = self._served.code
        if code is None:
            return self._compiled(context, config)
        self._life = ProtocolLifecycle(context, lambda: code)
        return await self._life.start(config)

    def _context(self, reply: m.BindingReply) -> BindingContext:
        return BindingContext(
            self.identity,
            PublicKey(reply.key),
            self._served.protocol,
            self.instance,
            Path(reply.workspace),
            None,
            self._client.home,
        )

    def _compiled(self, context: BindingContext, config: bytes) -> CompiledHandlers:
        try:
            value = msgspec.json.decode(config)
        except m.UNDECODABLE as error:
            raise InvalidConfig(protocol=context.protocol, reason=str(error)) from error
        filled = replace(context, config=value)
        requests = {command: handler.with_context(filled) for command, handler in self._served.requests.items()}
        streams = self._served.streams
        return CompiledHandlers(requests, None if streams is None else streams.with_context(filled))

    async def _ask(self) -> tuple[m.BindingReply, bytes]:
        question = m.GetBinding(self.identity, self._served.protocol, self.instance)
        return await self._client.control_with_payload(question)
