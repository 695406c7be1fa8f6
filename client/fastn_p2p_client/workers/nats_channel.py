"""Connection to a NATS server that is made again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from ..nats_client.nats_connection import RECONNECT_SECONDS, close, connect, reason_of
from ..nats_client.nats_server import NatsServer, NatsUnusable
from ..retry import Backoff
from .messages import AnyMessage
from .pending_messages import PendingMessages

if TYPE_CHECKING:
    from ..nats_client.direct_client import DirectClient, OnMessage

LONGEST_BACKOFF: Final = 5.0
MIN_PAYLOAD: Final = 8 * 1024
"""Bytes that a message of the server must be allowed to have."""
MAX_UNSENT: Final = 256 * 1024 * 1024
"""Bytes that wait to be sent at most. Further messages are dropped, and the bridge learns that from pongs."""

log = logging.getLogger(__name__)


class NatsChannel:
    """Connection to a NATS server. Create and use it inside one event loop.

    Args:
        server: the server.
        label: name of the connection, as the server's monitoring shows it.
        subscriptions: function by subject.
        on_connected: called each time after the subscriptions were made.

    Attributes:
        connected: whether messages reach the server at the moment.
        largest: bytes of the largest message that the server takes.
        problem: why there is no connection; empty while there is one.
    """

    def __init__(
        self,
        server: NatsServer,
        label: str,
        subscriptions: Mapping[str, OnMessage],
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._label = label
        self._subscriptions = subscriptions
        self._on_connected = on_connected
        self._pending = PendingMessages()
        self._unsent = 0
        self._loop = asyncio.get_running_loop()
        self._client: DirectClient | None = None
        self._closed = asyncio.Event()
        self.connected = False
        self.largest = 0
        self.problem = ""

    def send(self, subject: str, message: AnyMessage, reply: str = "") -> None:
        """Send a message with those of this turn of the event loop, or once there is a connection."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        if self._pending.size > MAX_UNSENT - self._unsent:
            self._report("too many bytes wait to be sent: messages are dropped")
            return
        self._pending.add(subject, message, reply)

    def flush(self) -> bool:
        """Write what waits, before this event loop does anything else. Return False if there is no connection."""
        client = self._client
        if client is None or not self.connected:
            return False
        try:
            for subject, reply, data in self._pending.drain(self.largest):
                client.publish_directly(subject, reply, data)
            self._unsent = client.unsent
        except Exception:  # of the transport: nats-py notices it, and says why
            self.connected = False
            return False
        return True

    async def connect(self) -> None:
        """Connect and subscribe. Raises NatsUnusable."""
        await self._end()
        self._closed.clear()
        client = await connect(
            self._server,
            self._label,
            on_error=self._on_error,
            on_disconnected=self._on_disconnected,
            on_reconnected=self._on_reconnected,
            on_closed=self._on_closed,
        )
        self._client = client
        for subject, function in self._subscriptions.items():
            await client.subscribe_directly(subject, function)
        await client.flush()
        self._set_connected()

    async def run(self) -> None:
        """Connect again whenever the connection has ended, until cancelled."""
        backoff = Backoff(RECONNECT_SECONDS, LONGEST_BACKOFF)
        try:
            while True:
                try:
                    if self._client is None:
                        await self.connect()
                    backoff.reset()
                    await self._closed.wait()
                except NatsUnusable as error:
                    self._report(error.reason)
                except (OSError, TimeoutError) as error:
                    self._report(reason_of(error, self._server))
                self.connected = False
                self._client = None
                await asyncio.sleep(backoff.next_delay())
        finally:
            await self._end()

    async def drain(self, timeout: float) -> None:
        """Send what waits, for at most so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                self.flush()
                if self._client is not None and self.connected:
                    await self._client.flush()
        except (TimeoutError, OSError):
            log.warning("answers were not sent in time")
        except Exception as error:  # of nats-py
            log.warning("answers were not sent: %s", error)

    async def _end(self) -> None:
        client, self._client, self.connected = self._client, None, False
        if client is not None:
            await close(client)

    def _set_connected(self) -> None:
        client = self._client
        if client is None:
            return
        self.largest = client.max_payload
        if self.largest < MIN_PAYLOAD:
            self._report(
                f"its messages have at most {self.largest} bytes, and {MIN_PAYLOAD} are needed: set max_payload in its "
                "configuration"
            )
        else:
            if self.problem:
                log.info("connected to the NATS server %s again", self._server.url)
            self.problem = ""
        self.connected = True
        self.flush()
        self._on_connected()

    def _report(self, problem: str) -> None:
        """Log a problem once, until there is another one."""
        if problem != self.problem:
            self.problem = problem
            log.warning("the NATS server %s: %s", self._server.url, problem)

    # ── callbacks of nats-py ─────────────────────────────────────────────────────────────────────────

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if "permissions violation" in text.lower():
            self._report(f"the account may not use a subject: {text.removeprefix('nats: ')}")
        else:
            self._report(reason_of(error, self._server))

    async def _on_disconnected(self) -> None:
        self.connected = False

    async def _on_reconnected(self) -> None:
        self._set_connected()

    async def _on_closed(self) -> None:
        self.connected = False
        self._closed.set()
