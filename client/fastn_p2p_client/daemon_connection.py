"""A program's connection to its daemon: hello, reconnection, and the check whether the daemon is running."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from .errors import DaemonBusy, DaemonNotRunning, DeadlineExceeded, P2PError, VersionMismatch
from .home import Home
from .ipc import messages as m
from .ipc.request_channel import RequestChannel, decode_answer
from .ipc.transport.base import TransportName
from .limits import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from .session.client_sessions import ClientSessions

_HELLO_TIMEOUT: Final = 10.0
"""Seconds until a ``Hello`` without a reply is sent again."""
_POLL_INTERVAL: Final = 0.1
"""Seconds between two checks whether the daemon is running, while a task waits for one of its processes."""
_BUSY_AFTER: Final = 0.5
"""Seconds of waiting after which a process counts as busy. With a shorter timeout the error is ``DeadlineExceeded``,
because the time was too short to know."""

_latest_waiting: Final[list[m.WaitingItem]] = []
_hello_reply: Final = msgspec.msgpack.Decoder(m.Welcome | m.ErrorReply)


class DaemonConnection:
    """Two request channels to one daemon: to the gateway, and to the network process, whose path the gateway sends.

    Both reconnect by themselves. The gateway is sent a ``Hello`` at each connection. The event loop holds this object
    while a channel is open. Used in one event loop, and not again after ``close``.

    Args:
        home: home of the daemon.
        program: name of the program in ``status``.
        transport: transport of both channels.
        sessions: receiver of all messages that belong to sessions.

    Attributes:
        gateway: channel to the gateway; None before the first use.
        network: channel to the network process; None before the first ``Welcome``.
        owner: object that has to live as long as this one.
    """

    def __init__(self, home: Home, program: str, transport: TransportName, sessions: ClientSessions) -> None:
        self._home = home
        self._program = program
        self._transport: Final[TransportName] = transport
        self._sessions = sessions
        self.gateway: RequestChannel | None = None
        self.network: RequestChannel | None = None
        self.owner: object = None
        self._network_path = Path()
        self._welcomed = asyncio.Event()
        self._rejection: P2PError | None = None
        """Error reply to the last ``Hello``."""
        self._hello: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[bool] | None = None
        """Polls whether the daemon is running, while tasks wait."""
        self.waiting = 0
        """Number of tasks that wait for a process of the daemon."""

    def close(self) -> None:
        """Close both channels: requests in flight and sessions end with ``ConnectionLost``."""
        if self._hello is not None and not self._hello.get_loop().is_closed():
            self._hello.cancel()
        for channel in (self.gateway, self.network):
            if channel is not None:
                channel.close()

    async def reach_gateway(self, deadline: float, timeout: float) -> RequestChannel:
        """Return the channel to the gateway once the gateway has accepted the ``Hello``.

        Args:
            deadline: time of the event loop at which to give up.
            timeout: seconds that the error names.

        Raises:
            DaemonNotRunning: no process holds the lock of the home.
            DaemonBusy: the gateway did not answer in time.
            DeadlineExceeded: there was too little time to know.
            VersionMismatch: the daemon speaks another version.
            HomeUnusable: another user could replace the socket.
        """
        if self.gateway is None:
            self.check_running()
            self._rejection = None
            self.gateway = RequestChannel(
                self._home.find_control_socket,
                "gateway",
                on_connect=self._start_hello,
                on_disconnect=self._welcomed.clear,
                transport=self._transport,
            )
            self.gateway.open()
        await self._wait_for(self._welcomed, "gateway", deadline, timeout)
        return self.gateway

    async def reach_network(self, deadline: float, timeout: float) -> RequestChannel:
        """Return the channel to the network process once it is connected.

        Args and errors are those of ``reach_gateway``.
        """
        if self.network is None:
            await self.reach_gateway(deadline, timeout)
        if self.network is None:
            raise DaemonBusy(actor="gateway")
        await self._wait_for(self.network.connected, "network", deadline, timeout)
        return self.network

    def check_running(self) -> None:
        """Raise DaemonNotRunning unless a process holds the lock of the home."""
        if self._home.daemon_pid() is None:
            raise DaemonNotRunning(home=str(self._home.path))

    async def _wait_for(self, event: asyncio.Event, actor: str, deadline: float, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not event.is_set():
            if (fatal := self._fatal_error()) is not None:
                raise fatal
            left = deadline - loop.time()
            if left <= 0:
                if loop.time() - began < _BUSY_AFTER:
                    raise DeadlineExceeded(seconds=timeout)
                raise DaemonBusy(actor=actor)
            if self._watch is None:
                self._watch = loop.create_task(self._watch_daemon())
            watch, is_set = self._watch, loop.create_task(event.wait())
            self.waiting += 1
            try:
                await asyncio.wait((is_set, watch), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                is_set.cancel()
                self.waiting -= 1
                if self._watch is watch and (watch.done() or not self.waiting):
                    watch.cancel()
                    self._watch = None
            if watch.done() and not watch.cancelled() and watch.result() and not event.is_set():
                raise DaemonNotRunning(home=str(self._home.path))

    def _fatal_error(self) -> P2PError | None:
        """Return the error that makes waiting pointless: a rejected ``Hello``, or a socket of another user."""
        channels = (self.gateway, self.network)
        return self._rejection or next(
            (each.socket_error for each in channels if each is not None and each.socket_error), None
        )

    async def _watch_daemon(self) -> bool:
        """Return True once the daemon is not running, or False once waiting is pointless.

        One task polls for all that wait: if each of thousands of calls polled, the polls would take all the time.
        """
        while self._fatal_error() is None:
            await asyncio.sleep(_POLL_INTERVAL)
            if self._home.daemon_pid() is None:
                return True
        return False

    def _start_hello(self) -> None:
        self._hello = asyncio.get_running_loop().create_task(self._send_hello())

    async def _send_hello(self) -> None:
        if self.gateway is None:
            return
        hello = m.encode(m.Hello(OLDEST_PROTOCOL_VERSION, self._program, PROTOCOL_VERSION))
        try:
            answer = await self.gateway.request_encoded(hello, b"", _HELLO_TIMEOUT)
            reply = decode_answer(_hello_reply, answer.header)
        except DeadlineExceeded:
            self._start_hello()
            return
        except P2PError:
            return  # the channel reconnects, and that starts the next hello
        if isinstance(reply, m.ErrorReply):
            self._rejection = reply.error()
        elif not OLDEST_PROTOCOL_VERSION <= reply.version <= PROTOCOL_VERSION:
            self._rejection = VersionMismatch(ours=PROTOCOL_VERSION, theirs=reply.version)
        else:
            self._rejection = None
            _latest_waiting[:] = reply.waiting
            self._open_network(Path(os.fsdecode(reply.data_route.encode())))  # also where file names are not UTF-8
            self._welcomed.set()

    def _open_network(self, path: Path) -> None:
        if self.network is not None:
            if self._network_path == path:
                return
            self.network.close()
        self._network_path = path
        self.network = RequestChannel(
            path,
            "network",
            on_message=self._sessions.on_message,
            on_disconnect=self._sessions.connection_lost,
            transport=self._transport,
        )
        self.network.open()


def latest_waiting() -> list[m.WaitingItem]:
    """Return what has waited for the owner when a daemon answered the last hello of this process; for commands."""
    return _latest_waiting
