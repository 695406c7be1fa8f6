"""Sessions of a worker: for each it connects to the daemon over TLS, with a token that it has made for it.

::

    bridge          OfferSession ->                    worker
                                 <- AcceptSession    the hash of a new token
                  DialForSession ->                    where the daemon listens, and its certificate
    daemon                       <= TLS: RedeemRoute   the token itself
                  DeliverSession =>                    then the bytes of the session, both ways

What passes NATS is of no use to others: a token is sent only to the daemon that has the certificate.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import InvalidKey, P2PError
from ..ipc import messages as m
from ..ipc.request_channel import RequestChannel, check_reply, decode_answer
from ..keys import PublicKey
from ..serving.binding import ServedBinding
from ..serving.dispatcher import Dispatcher
from ..serving.handlers import StreamHandler
from ..serving.registration_loop import DATA_MESSAGE
from ..serving.worker_connection import WorkerConnection
from ..worker_token import SECRET_BYTES, parse_address, token_hash
from .messages import AcceptSession, DialForSession, OfferSession, RefuseSession

DIAL_SECONDS: Final = 3.0
"""Seconds until the daemon has handed over the session."""
TOKEN_SECONDS: Final = 6.0
"""Seconds after which a token is forgotten for which no ``DialForSession`` has come."""
MAX_TOKENS: Final = 256
"""Tokens that wait for one."""
_END_SECONDS: Final = 1.0
"""Seconds that handlers may take to end once they were cancelled."""
_MAX_REASON: Final = 200

Answer: TypeAlias = Callable[[str, AcceptSession | RefuseSession], None]
"""Sends a message to the bridge of this name."""

log = logging.getLogger(__name__)


class DialledSessions:
    """Sessions of one worker. Create and use it inside one event loop.

    Args:
        names: identity, protocol and instance.
        handler: serves each session.
        answer: answers a bridge.
        on_change: called when the number of sessions has changed.
    """

    def __init__(
        self, names: tuple[str, str, str], handler: StreamHandler, answer: Answer, on_change: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._names = names
        self._handler = handler
        self._answer = answer
        self._on_change = on_change
        self._tokens: dict[bytes, tuple[OfferSession, bytes, asyncio.TimerHandle]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._tasks)

    def on_offer(self, offer: OfferSession) -> None:
        """Accept a session: make a token for it."""
        if self._is_closing or len(self._tokens) >= MAX_TOKENS or offer.id in self._tokens:
            self._answer(offer.bridge, RefuseSession(offer.id, "it takes no more sessions"))
            return
        token = secrets.token_bytes(SECRET_BYTES)
        timer = self._loop.call_later(TOKEN_SECONDS, self._tokens.pop, offer.id, None)
        self._tokens[offer.id] = offer, token, timer
        self._answer(offer.bridge, AcceptSession(offer.id, token_hash(token)))

    def on_dial(self, message: DialForSession) -> None:
        """Connect to the daemon, and serve the session. Drop a message about one that was not accepted."""
        found = self._tokens.pop(message.id, None)
        if found is None:
            return
        offer, token, timer = found
        timer.cancel()
        task = self._loop.create_task(self._serve(offer, token, message))
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        self._on_change()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a session was not served", exc_info=error)
        self._on_change()

    async def drain(self, timeout: float) -> None:
        """Take no more sessions, wait for those that are open, and end those that still are after so many seconds."""
        self._is_closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        self.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)

    def close(self) -> None:
        """End all sessions."""
        self._is_closing = True
        for _, _, timer in self._tokens.values():
            timer.cancel()
        self._tokens.clear()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, offer: OfferSession, token: bytes, message: DialForSession) -> None:
        identity, protocol, instance = self._names
        try:
            binding = ServedBinding(identity, PublicKey(offer.key), protocol, instance, {}, self._handler)
            session = _DialledSession(binding, parse_address(message.address), message.fingerprint)
            await session.serve(token)
        except (P2PError, InvalidKey, ValueError) as error:
            log.warning("a session of %s was not taken: %s", identity, error)
            self._answer(offer.bridge, RefuseSession(offer.id, str(error)[:_MAX_REASON]))


class _DialledSession:
    """Session with a connection of its own."""

    def __init__(self, binding: ServedBinding, address: tuple[str, int], fingerprint: bytes) -> None:
        self._binding = binding
        self._address = address
        self._failed: asyncio.Future[str | P2PError] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._dispatcher = Dispatcher(self._send, self._send_session_message, on_session_end=self._on_session_end)
        self._dispatcher.add(binding)
        self._channel = RequestChannel(
            Path(),
            "network",
            connection=partial(WorkerConnection, address, fingerprint, self._on_failure),
            on_message=self._dispatcher.on_message,
            on_disconnect=self._on_disconnect,
        )

    async def serve(self, token: bytes) -> None:
        """Take the session and run its handler, until both directions have ended.

        Raises:
            P2PError: it could not be taken.
            ValueError: the daemon cannot be reached. The message says why.
        """
        self._channel.open()
        try:
            await self._redeem(token)
            await self._ended.wait()
            if self._channel.connected.is_set():
                await self._channel.drain()
        finally:
            await self._dispatcher.drain(0)
            self._dispatcher.close()
            self._channel.close()

    async def _redeem(self, token: bytes) -> None:
        binding = self._binding
        message = m.RedeemRoute(binding.identity, binding.protocol, binding.instance, token)
        taking = asyncio.ensure_future(self._channel.request(message, timeout=DIAL_SECONDS))
        try:
            await asyncio.wait((taking, self._failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not taking.done():
                taking.cancel()
        if self._failed.done():
            reason = self._failed.result()
            raise reason if isinstance(reason, P2PError) else ValueError(
                f"{self._address[0]}:{self._address[1]} cannot be reached: {reason}"
            )  # fmt: skip
        check_reply(decode_answer(DATA_MESSAGE, taking.result().header), m.Ack, "the network process")

    def _on_failure(self, reason: str | P2PError) -> None:
        if not self._failed.done():
            self._failed.set_result(reason)

    def _on_disconnect(self) -> None:
        """End the session. The connection is not made again: the daemon knows the token no more."""
        self._channel.close()
        self._dispatcher.cancel_all()
        self._on_session_end()

    def _on_session_end(self) -> None:
        if not self._dispatcher.has_sessions:
            self._ended.set()

    def _send(self, correlation: bytes, header: bytes, payload: bytes) -> None:
        try:
            self._channel.answer(correlation, header, payload)
        except P2PError as error:
            log.info("the answer to a session was lost: %s", error)

    def _send_session_message(self, correlation: bytes, header: bytes, payload: bytes | memoryview) -> None:
        self._channel.send(correlation, header, payload, credited=True)
