"""Control requests of a program, and the life of its connection to the daemon.

``ControlClient`` binds to an event loop at its first use, and is closed by ``close`` or at the end of its loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from .affinity import LoopBound, caller_location, release_ended, running_loop, used_elsewhere
from .daemon_connection import DaemonConnection
from .errors import ConnectionLost, DeadlineExceeded, IdentityAmbiguous, IdentityNotFound, NoIdentityOnline
from .home import Home
from .ipc import messages as m
from .ipc.request_channel import check_reply, decode_answer
from .ipc.transport.base import TransportName, choose_transport
from .keys import PublicKey
from .session.client_sessions import ClientSessions

ReplyT = TypeVar("ReplyT")
Named = TypeVar("Named", "m.IdentityInfo", "m.PeerInfo")

DEFAULT_CONTROL_TIMEOUT: Final = 60.0
"""Seconds for one control request."""
_REACH_TIMEOUT: Final = 10.0
"""Seconds after which a gateway that does not answer is reported, however long the request itself may take."""


@cache
def _decoder(reply_type: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of a reply and of an error. A decoder of all replies takes a command longer than its call."""
    return msgspec.msgpack.Decoder(reply_type | m.ErrorReply)


def check_timeout(timeout: float) -> None:
    """Raise DeadlineExceeded, before anything is sent, if the timeout is zero, negative or NaN."""
    if not timeout > 0:
        raise DeadlineExceeded(seconds=timeout)


def time_left(deadline: float, timeout: float) -> float:
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise DeadlineExceeded(seconds=timeout)
    return left


class ControlClient(LoopBound):
    """Connection of a program to its daemon, with the requests to the gateway. ``Client`` adds calls and sessions.

    Args and errors are those of ``Client``.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    """The event loop that it belongs to. None before the first use, in a forked child, and if ``__init__`` raised."""

    def __init__(
        self,
        home: Home | str | os.PathLike[str] | None = None,
        *,
        program: str = "",
        transport: TransportName | None = None,
    ) -> None:
        self.home = home if isinstance(home, Home) else Home.find(home)
        self.transport: Final = choose_transport(transport)
        self._program = (program or Path(sys.argv[0] or "python").name)[:64]
        self._pid = 0
        """The process that it belongs to; 0 before the first use."""
        self._made_at = caller_location()
        self._keeper: AsyncGenerator[None, None] | None = None
        """Closes a shared client at the end of its event loop, because no program can; None for other clients."""
        self._disconnect()

    def _disconnect(self) -> None:
        """Start over with a connection that is not open."""
        self._sessions = ClientSessions()
        self._daemon = DaemonConnection(self.home, self._program, self.transport, self._sessions)

    def __repr__(self) -> str:
        return f"<Client of {self.home.path}, made at {self._made_at}>"

    def __del__(self) -> None:
        loop = self._loop
        if loop is None or self._daemon.gateway is None:
            return
        if loop.is_closed():
            self._daemon.close()
        else:
            with suppress(RuntimeError):  # the loop is being closed in another thread
                loop.call_soon_threadsafe(self._daemon.close)
        if self._keeper is None:
            warnings.warn(f"unclosed {self!r}. Use `with`, or call close()", ResourceWarning, stacklevel=2, source=self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls in flight and open sessions end with ``ConnectionLost``.

        The client opens again at its next use, in any event loop and process. Any thread may call this: if the client's
        event loop runs in another thread, the client is closed there a moment later. In a forked child the parent's
        client stays open.
        """
        loop = self._loop
        if loop is not None and loop.is_running() and loop is not running_loop():
            with suppress(RuntimeError):  # the loop is being closed in its thread
                loop.call_soon_threadsafe(self.close)
            return
        if loop is not None:
            self._daemon.close()
            if not loop.is_closed():
                self._sessions.connection_lost()
        self._loop = None
        self._pid = 0
        self._disconnect()

    def _after_fork(self) -> None:
        self._loop = None

    def _claim(self) -> asyncio.AbstractEventLoop:
        """Bind the client to the running event loop and return the loop.

        Raises:
            UsedElsewhere: the client belongs to another event loop or process.
        """
        if self._pid:
            raise used_elsewhere("this client", self._pid, self._loop)
        self._loop = loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        if self._keeper is not None:
            self._daemon.owner = self  # the event loop holds a shared client through its connection
        self._track()
        release_ended()
        return loop

    async def start(self, *, timeout: float = DEFAULT_CONTROL_TIMEOUT) -> None:
        """Connect and wait until calls can be made. Calls and sessions do this by themselves.

        Args:
            timeout: seconds.

        Raises:
            DaemonNotRunning: no process holds the lock of the home.
            DaemonBusy: the daemon runs, but one of its processes did not answer in time.
            DeadlineExceeded: the timeout was too short to know.
            HomeUnusable: another user could replace the daemon's sockets.
            UsedElsewhere: the client belongs to another event loop or process.
            VersionMismatch: the daemon speaks another version of the protocol.
        """
        if running_loop() is not self._loop:
            self._claim()
        check_timeout(timeout)
        await self._daemon.reach_network(asyncio.get_running_loop().time() + timeout, timeout)

    async def control(
        self, message: m.RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> ReplyT:
        """Send one control request to the gateway and return its reply.

        Args:
            message: a control request of ``fastn_p2p_client.ipc.messages``, for instance ``GetStatus()``.
            payload: the request's payload, for instance a config as JSON; empty where the request has none.
            timeout: seconds.

        Returns:
            The reply, of the type that the request names as ``reply_type``.

        Raises:
            P2PError: the error reply of the daemon, or the reason why there is no reply, as in ``start``.
        """
        return (await self.control_with_payload(message, payload, timeout=timeout))[0]

    async def control_with_payload(
        self, message: m.RequestFor[ReplyT], payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> tuple[ReplyT, bytes]:
        """Send one control request to the gateway and return its reply and the reply's payload.

        Args:
            message: a control request of ``fastn_p2p_client.ipc.messages``, for instance ``GetBinding(...)``.
            payload: the request's payload; empty where the request has none.
            timeout: seconds.

        Raises:
            P2PError: the error reply of the daemon, or the reason why there is no reply, as in ``start``.
        """
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        check_timeout(timeout)
        deadline = loop.time() + timeout
        channel = await self._daemon.reach_gateway(min(deadline, deadline - timeout + _REACH_TIMEOUT), timeout)
        try:
            answer = await channel.request_encoded(m.encode(message), payload, time_left(deadline, timeout))
        except ConnectionLost:
            self._daemon.check_running()
            raise
        kind: Any = message.reply_type
        reply: ReplyT = check_reply(decode_answer(_decoder(kind), answer.header), kind, "the daemon")
        return reply, answer.payload

    async def status(self) -> m.Status:
        """Return the state of the daemon.

        Raises:
            P2PError: the daemon did not answer, as in ``start``.
        """
        return (await self.control(m.GetStatus())).status

    async def resolve_identity(self, identity: str | None) -> tuple[str, PublicKey]:
        """Return name and key of an identity of this daemon.

        Args:
            identity: its name; None for the only one online.

        Raises:
            IdentityNotFound: there is no identity of this name.
            IdentityAmbiguous: None was given, and several identities are online.
            NoIdentityOnline: None was given, and no identity is online.
            P2PError: the daemon did not answer, as in ``start``.
        """
        identities = await list_all_identities(self)
        if identity is not None:
            for each in identities:
                if each.name == identity:
                    return each.name, PublicKey(each.id52)
            raise IdentityNotFound(identity=identity)
        online = [each for each in identities if each.online]
        if not online:
            raise NoIdentityOnline()
        if len(online) > 1:
            raise IdentityAmbiguous.among(each.name for each in online)
        return online[0].name, PublicKey(online[0].id52)


async def list_all_identities(client: ControlClient, page: int = 0) -> list[m.IdentityInfo]:
    """Return all identities of the daemon, sorted by name.

    Args:
        page: most entries of one reply; 0 for the daemon's maximum.

    Raises:
        P2PError: the daemon replied with an error, or did not reply.
    """

    async def page_after(name: str) -> tuple[list[m.IdentityInfo], bool]:
        reply = await client.control(m.ListIdentities(name, page))
        return reply.identities, reply.more

    return await _all_pages(page_after)


async def list_all_peers(client: ControlClient, page: int = 0) -> list[m.PeerInfo]:
    """Return the whole address book of the daemon, sorted by name. ``page`` and errors as ``list_all_identities``."""

    async def page_after(name: str) -> tuple[list[m.PeerInfo], bool]:
        reply = await client.control(m.ListPeers(name, page))
        return reply.peers, reply.more

    return await _all_pages(page_after)


async def _all_pages(page_after: Callable[[str], Awaitable[tuple[list[Named], bool]]]) -> list[Named]:
    """Return the entries of all pages. ``page_after`` returns those after a name, and whether there are more."""
    found: list[Named] = []
    more = True
    while more:
        page, more = await page_after(found[-1].name if found else "")
        found += page
        more = more and bool(page)
    return found
