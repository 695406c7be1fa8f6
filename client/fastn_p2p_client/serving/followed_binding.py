"""Binding of a program, kept as its owner declares it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
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
from ..protocol import BindingContext, effective_access
from .handlers import ProtocolHandlers
from .hooks import MAX_REASON
from .protocol_lifecycle import ProtocolLifecycle
from .registrar import Registrar
from .registration import BindingRegistration

DAEMON_UNAVAILABLE: Final = (DaemonNotRunning, DaemonBusy, ConnectionLost, DeadlineExceeded, Overloaded)
"""Errors while the daemon or one of its processes is away. They say nothing about the binding."""

log = logging.getLogger(__name__)


class FollowedBinding:
    """Starts, reloads and stops a binding as its owner's declaration changes; see ``reconcile``.

    Attributes:
        identity: name of the identity.
        instance: name of the instance.
        registration: the binding's registration, while it is served.
        failure: why it is not served as declared; empty otherwise.
    """

    def __init__(
        self,
        client: Client,
        registrar: Registrar,
        handlers: ProtocolHandlers,
        identity: str,
        protocol: str,
        instance: str,
    ) -> None:
        self.identity = identity
        self.instance = instance
        self.registration: BindingRegistration | None = None
        self.failure = ""
        self._client = client
        self._registrar = registrar
        self._handlers = handlers
        self._protocol = protocol
        self._lifecycle: ProtocolLifecycle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._version = b""
        """Version of the declaration that is served or has failed."""

    async def reconcile(self, info: m.BindingInfo | None) -> None:
        """Serve the binding as declared, or stop serving it.

        Args:
            info: the declaration; None if there is none any more.

        Raises:
            P2PError: one of ``DAEMON_UNAVAILABLE``; call it again later.
        """
        try:
            if info is None or info.leaving or not info.online:
                await self.end(delete=info is not None and info.leaving)
            elif info.version != self._version:
                await (self._start() if self.registration is None else self._reload(self.registration))
        except BindingNotFound:
            await self.end()  # its owner has removed it meanwhile; the next list says so
        except DAEMON_UNAVAILABLE:
            raise
        except P2PError as error:
            self.set_failure(error)
            if info is not None:
                self._version = info.version

    async def end(self, *, delete: bool = False) -> None:
        """Stop serving the binding, once its requests in flight have ended.

        Args:
            delete: call ``on_delete`` as well.
        """
        registration, self.registration = self.registration, None
        lifecycle, self._lifecycle = self._lifecycle, None
        self._version, self.failure = b"", ""
        if registration is not None:
            await self._registrar.remove(registration)
        if lifecycle is not None:
            await lifecycle.stop(delete=delete)

    def set_failure(self, error: P2PError) -> None:
        """Note and log why the binding is not served, or not as declared."""
        self.failure = str(error)[:MAX_REASON]
        as_declared = "" if self.registration is None else " as its owner wants it"
        log.error("%s is not served%s: %s", self, as_declared, error)

    def __str__(self) -> str:
        return f"{self._protocol} ({self.instance}) of {self.identity}"

    async def _start(self) -> None:
        reply, config = await self._get_binding()
        access = effective_access(self._handlers.code, reply.allow)
        handlers = await self._activate(reply, config)
        try:
            self.registration = await self._registrar.add(
                self.identity,
                self._protocol,
                self.instance,
                handlers,
                access,
                keeps_state=self._lifecycle is not None and self._lifecycle.keeps_state(),
            )
        except P2PError:
            if self._lifecycle is not None:
                await self._lifecycle.stop()
            raise
        self.registration.on_home = self._on_home
        self._version, self.failure = reply.version, ""

    def _on_home(self, daemon: str) -> None:
        if self._lifecycle is not None:
            task = asyncio.get_running_loop().create_task(self._lifecycle.set_home(daemon))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reload(self, registration: BindingRegistration) -> None:
        """Give a class's instance the new config, or handlers a new context."""
        reply, config = await self._get_binding()
        if self._lifecycle is not None:
            await self._lifecycle.reload(config)
            registration.keeps_state = self._lifecycle.keeps_state()
            registration.stateless = self._lifecycle.is_stateless()
        else:
            handlers = self._with_config(self._context(reply), config)
            registration.handlers, registration.streams = handlers.requests, handlers.streams
        registration.access = effective_access(self._handlers.code, reply.allow)
        await self._registrar.update(registration)
        self._version, self.failure = reply.version, ""

    async def _activate(self, reply: m.BindingReply, config: bytes) -> ProtocolHandlers:
        context = self._context(reply)
        code = self._handlers.code
        if code is None:
            return self._with_config(context, config)
        self._lifecycle = ProtocolLifecycle(context, lambda: code)
        handlers = await self._lifecycle.start(config)
        is_stateless = self._lifecycle.is_stateless()
        return replace(self._handlers, requests=handlers.requests, streams=handlers.streams, stateless=is_stateless)

    def _context(self, reply: m.BindingReply) -> BindingContext:
        return BindingContext(
            self.identity,
            PublicKey(reply.key),
            self._protocol,
            self.instance,
            Path(reply.workspace),
            None,
            self._client.home,
        )

    def _with_config(self, context: BindingContext, config: bytes) -> ProtocolHandlers:
        try:
            value = msgspec.json.decode(config)
        except m.UNDECODABLE as error:
            raise InvalidConfig(protocol=context.protocol, reason=str(error)) from error
        return self._handlers.with_context(replace(context, config=value))

    async def _get_binding(self) -> tuple[m.BindingReply, bytes]:
        request = m.GetBinding(self.identity, self._protocol, self.instance)
        return await self._client.control_with_payload(request)
