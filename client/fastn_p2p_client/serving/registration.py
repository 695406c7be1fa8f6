"""One run of a program that serves: its registrations with the daemon, and its handlers.

What is offered may change while it runs; everything is registered again whenever a process of the daemon, or the whole
daemon, has been started anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from ..affinity import running_loop
from ..client import Client
from ..errors import (
    ConnectionLost,
    Forbidden,
    P2PError,
)
from ..ipc import messages as m
from ..ipc.request_channel import (
    RequestChannel,
    decode_answer,
)
from ..keys import PublicKey
from ..limits import MAX_CALLS_PER_BINDING
from ..retry import Backoff
from .binding import ServedBinding
from .dispatcher import Dispatcher
from .handlers import RequestHandler, StreamHandler

__all__ = ["BindingRegistration", "Registrar"]

log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 5.0
"""How long what is in flight may take when the program stops serving."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_answer: Final = msgspec.msgpack.Decoder(m.DataMessage)


@dataclass(slots=True, eq=False)
class BindingRegistration:
    """What a program serves as one identity, under one protocol and instance."""

    identity: str
    protocol: str
    instance: str
    access: tuple[str, ...]
    """Who may use it, unless its owner has said so."""
    requests: dict[str, RequestHandler] = field(default_factory=dict)
    """By command, as in ``ServedBinding``."""
    streams: StreamHandler | None = None
    concurrency: int | None = None
    queue: int = MAX_CALLS_PER_BINDING
    granted: m.Grant | None = None
    binding: ServedBinding | None = None

    @property
    def limit(self) -> int:
        """As in ``RegisterBinding``."""
        return 0 if self.concurrency is None else self.concurrency + self.queue

    def message(self) -> m.RegisterBinding:
        """What the network is told. Needs a grant."""
        if self.granted is None:
            raise ValueError(f"{self} has no grant")
        allow = self.granted.allow or self.access
        return m.RegisterBinding(self.identity, self.protocol, self.instance, allow, self.granted.grant, self.limit)

    def __str__(self) -> str:
        return f"{self.protocol} ({self.instance}) of {self.identity}"


class Registrar:
    """Made inside the running event loop.

    Args:
        ready: set while everything that is offered is registered, as far as this program can see to it.
        on_refused: told what the network refuses to have served, and why; by default, that ends the run.
    """

    def __init__(
        self,
        client: Client,
        ready: asyncio.Event,
        on_refused: Callable[[BindingRegistration, P2PError], object] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._client = client
        self._ready = ready
        self._on_refused = on_refused or (lambda offered, error: self.stop(error))
        self._offered: list[BindingRegistration] = []
        self._waiting: list[BindingRegistration] = []
        """Those of which the network does not know."""
        self._settled = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._registering: asyncio.Task[None] | None = None
        self._dispatcher = Dispatcher(self._reply, self._say)
        self._link = RequestChannel(
            partial(client.home.find_mailbox, "network"),
            "network",
            on_message=self._dispatcher.on_message,
            on_up=self._come_up,
            on_down=self._go_down,
            transport=client.transport,
        )

    async def run(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Serve until ``stop``, until cancelled, or until it cannot go on; then finish what is in flight.

        Args:
            work: goes on meanwhile; what it raises ends the run. It is cancelled at the end.

        Raises:
            P2PError: why it cannot be served.
        """
        self._link.open()
        working = self._loop.create_task(work) if work is not None else None
        if working is not None:
            working.add_done_callback(self._worked)
        try:
            await self._ended
        except GeneratorExit:  # the event loop was closed: nothing can be awaited any more
            self._link.close()
            raise
        except BaseException:
            await self._finish(working)
            raise
        await self._finish(working)

    async def _finish(self, working: asyncio.Task[None] | None) -> None:
        if working is not None:
            working.cancel()
            await asyncio.wait([working])
        await self._drain()

    def stop(self, error: P2PError | None = None) -> None:
        """Have ``run`` return, or raise ``error``. Any thread may call this; in a forked child nothing happens."""
        if running_loop() is not self._loop:
            if self._pid == os.getpid():
                with suppress(RuntimeError):  # the loop has ended, and the run with it
                    self._loop.call_soon_threadsafe(self._stop, error)
            return
        self._stop(error)

    def _stop(self, error: P2PError | None) -> None:
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)

    def _worked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._ended.done() and (error := task.exception()) is not None:
            self._ended.set_exception(error)

    # ── what is offered ──────────────────────────────────────────────────────────────────────────

    async def offer(self, offered: BindingRegistration) -> None:
        """Serve it from now on; the network is told as soon as it is there.

        Raises:
            P2PError: why the gateway does not grant it.
        """
        granted = await self._ask_for_grant(offered)
        if not granted.online:
            log.warning(
                "%s is offline: nothing arrives until `fastn-p2p identity-online %s`",
                offered.identity, offered.identity,
            )  # fmt: skip
        offered.binding = ServedBinding(
            offered.identity,
            PublicKey(granted.key),
            offered.protocol,
            offered.instance,
            offered.requests,
            offered.streams,
            offered.concurrency,
        )
        self._dispatcher.add(offered.binding)
        self._offered.append(offered)
        self._renew(offered)

    async def grant(self, offered: BindingRegistration) -> None:
        """What its owner says of it is new: ask, and tell the network. Raises like ``offer``."""
        await self._ask_for_grant(offered)
        self._renew(offered)

    def _renew(self, offered: BindingRegistration) -> None:
        if offered in self._offered and offered not in self._waiting:
            self._waiting.append(offered)
        self._ready.clear()
        if self._link.connected.is_set() and (self._registering is None or self._registering.done()):
            self._registering = self._loop.create_task(self._register())

    def initial_set_complete(self) -> None:
        """Nothing more is coming, for now: ``ready`` is set once everything is registered, at once if it is."""
        self._settled = True
        idle = self._registering is not None and self._registering.done()
        if self._link.connected.is_set() and idle and not self._waiting:
            self._ready.set()

    async def withdraw(self, offered: BindingRegistration) -> None:
        """Serve it no more; what is in flight is finished first."""
        self._forget(offered)
        if offered.binding is None:
            return
        try:
            if self._link.connected.is_set():
                await self._ask(m.UnregisterBinding(offered.identity, offered.protocol, offered.instance))
        except P2PError as error:
            log.info("%s was not withdrawn: %s", offered, error)
        self._dispatcher.remove(offered.binding)
        await self._dispatcher.wait_for_binding(offered.binding, _DRAIN_SECONDS)

    def _forget(self, offered: BindingRegistration) -> None:
        for known in (self._offered, self._waiting):
            if offered in known:
                known.remove(offered)

    # ── registering ──────────────────────────────────────────────────────────────────────────────

    async def _ask_for_grant(self, offered: BindingRegistration) -> m.Grant:
        granted = await self._client.control(m.RequestGrant(offered.identity, offered.protocol, offered.instance))
        offered.granted = granted
        return granted

    def _come_up(self) -> None:
        self._waiting = list(self._offered)
        self._registering = self._loop.create_task(self._register())

    def _go_down(self) -> None:
        self._ready.clear()
        if self._registering is not None:
            self._registering.cancel()
        self._dispatcher.cancel_all()  # its ids mean nothing to the next network process

    async def _register(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self._waiting:
            later = []
            while self._waiting:
                offered = self._waiting.pop(0)
                try:
                    await self._serve(offered)
                except ConnectionLost:
                    return  # when the network is back, this starts again
                except P2PError as error:
                    if error.retryable:
                        later.append(offered)
                    else:
                        self._forget(offered)
                        self._on_refused(offered, error)
            if later:
                await asyncio.sleep(backoff.pause())
                self._waiting += [each for each in later if each in self._offered and each not in self._waiting]
        if self._settled:
            self._ready.set()

    async def _serve(self, offered: BindingRegistration) -> None:
        try:
            await self._ask(offered.message())
        except Forbidden:  # the grant is of an earlier daemon
            await self._ask_for_grant(offered)
            if offered in self._offered:
                await self._ask(offered.message())

    async def _ask(self, message: msgspec.Struct) -> None:
        answer = await self._link.request(message, timeout=_ASK_SECONDS)
        reply = decode_answer(_answer, answer.header)
        if isinstance(reply, m.ErrorReply):
            raise reply.error()

    # ── serving, and its end ─────────────────────────────────────────────────────────────────────

    def _reply(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._link.answer(correlation, header, payload)
        except P2PError as error:
            log.warning("an answer was lost: %s", error)

    def _say(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._link.send(correlation, header, payload, credited=True)

    async def _drain(self) -> None:
        self._ready.clear()
        if self._registering is not None:
            self._registering.cancel()
        try:
            if self._link.connected.is_set():
                for each in self._offered:
                    await self._ask(m.UnregisterBinding(each.identity, each.protocol, each.instance))
            await self._dispatcher.drain(_DRAIN_SECONDS)
            if self._link.connected.is_set():
                await self._link.drain()
        except P2PError as error:
            log.info("the daemon was gone before this program: %s", error)
        finally:
            self._dispatcher.close()
            self._link.close()
