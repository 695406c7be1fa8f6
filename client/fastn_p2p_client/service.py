"""One run of a program that serves: its registration with the daemon, and its handlers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from . import messages as m
from .binding import Binding
from .client import Client
from .dispatch import Dispatcher
from .errors import BadMessage, ConnectionLost, Forbidden, P2PError
from .handlers import RequestHandler, StreamHandler
from .keys import PublicKey
from .limits import MAX_CALLS_PER_BINDING
from .link import Link, decode_answer

__all__ = ["Offered", "Service"]

log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 5.0
"""How long what is in flight may take when the program stops serving."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_answer: Final = msgspec.msgpack.Decoder(m.DataReply)


@dataclass(slots=True)
class Offered:
    """What a program serves under one protocol and instance."""

    protocol: str
    instance: str
    access: tuple[str, ...] = ("peers",)
    requests: RequestHandler | None = None
    streams: StreamHandler | None = None
    concurrency: int | None = None
    queue: int = MAX_CALLS_PER_BINDING
    grant: bytes = b""

    @property
    def limit(self) -> int:
        """As in ``Serve``."""
        return 0 if self.concurrency is None else self.concurrency + self.queue


class Service:
    """Made inside the running event loop.

    Args:
        offered: at least one.
        ready: set while everything is served, as far as this program can see to it.
    """

    def __init__(self, identity: str, offered: Sequence[Offered], client: Client, ready: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._identity = identity
        self._offered = offered
        self._client = client
        self._ready = ready
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._registering: asyncio.Task[None] | None = None
        self._dispatcher = Dispatcher(self._reply, self._say)
        self._link = Link(
            client.home.mailbox("network"),
            "network",
            on_message=self._dispatcher.on_message,
            on_up=self._come_up,
            on_down=self._go_down,
        )

    async def run(self) -> None:
        """Serve until ``stop``, until cancelled, or until it cannot go on; then finish what is in flight.

        Raises:
            P2PError: why it cannot be served.
        """
        granted = [await self._ask_for_grant(each) for each in self._offered]
        key = PublicKey(granted[0].key)
        if not granted[0].online:
            log.warning(
                "%s is offline: nothing arrives until `fastn-p2p identity-online %s`", self._identity, self._identity
            )
        for each in self._offered:
            self._dispatcher.add(
                Binding(
                    self._identity, key, each.protocol, each.instance, each.requests, each.streams, each.concurrency
                )
            )
        self._link.open()
        try:
            await self._ended
        finally:
            await self._drain()

    def stop(self) -> None:
        """Have ``run`` return."""
        if not self._ended.done():
            self._ended.set_result(None)

    # ── registering ──────────────────────────────────────────────────────────────────────────────

    async def _ask_for_grant(self, offered: Offered) -> m.Granted:
        granted = await self._client.control(m.Register(self._identity, offered.protocol, offered.instance))
        if not isinstance(granted, m.Granted):
            raise BadMessage(reason=f"the gateway answered with {type(granted).__name__}")
        offered.grant = granted.grant
        return granted

    def _come_up(self) -> None:
        self._registering = self._loop.create_task(self._register())

    def _go_down(self) -> None:
        self._ready.clear()
        if self._registering is not None:
            self._registering.cancel()
        self._dispatcher.cancel_all()  # its ids mean nothing to the next network process

    async def _register(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                for each in self._offered:
                    await self._serve(each)
            except ConnectionLost:
                return  # when the network is back, this starts again
            except P2PError as error:
                if not error.retryable:
                    if not self._ended.done():
                        self._ended.set_exception(error)
                    return
            else:
                self._ready.set()
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _serve(self, offered: Offered) -> None:
        try:
            await self._ask(self._serve_message(offered))
        except Forbidden:  # the grant is of an earlier daemon
            await self._ask_for_grant(offered)
            await self._ask(self._serve_message(offered))

    def _serve_message(self, offered: Offered) -> m.Serve:
        return m.Serve(self._identity, offered.protocol, offered.instance, offered.access, offered.grant, offered.limit)

    async def _ask(self, message: msgspec.Struct) -> None:
        answer = await self._link.ask(message, timeout=_ASK_SECONDS)
        reply = decode_answer(_answer, answer.header)
        if isinstance(reply, m.Failure):
            raise reply.error()

    # ── serving, and its end ─────────────────────────────────────────────────────────────────────

    def _reply(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._link.send(correlation, header, payload)
        except P2PError as error:
            log.warning("an answer was lost: %s", error)

    def _say(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._link.send(correlation, header, payload, credited=True)

    async def _drain(self) -> None:
        self._ready.clear()
        if self._registering is not None:
            self._registering.cancel()
        try:
            if self._link.up.is_set():
                for each in self._offered:
                    await self._ask(m.Withdraw(self._identity, each.protocol, each.instance))
            await self._dispatcher.drain(_DRAIN_SECONDS)
            if self._link.up.is_set():
                await self._link.flushed()
        except P2PError as error:
            log.info("the daemon was gone before this program: %s", error)
        finally:
            self._dispatcher.close()
            self._link.close()
