"""Calls and sessions from a program: ``Client`` and, for one home and event loop, ``call`` and ``connect``.

A client holds two sockets: one to the gateway, for hello and control, and one to the network, for the rest. It
reconnects by itself; what was in flight when a process of the daemon died ends with ``ConnectionLost``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, overload
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

import msgspec

from .affinity import LoopBound, place_of_caller, release_ended, running_loop, used_elsewhere, weakly
from .errors import (
    BadReply,
    ConnectionLost,
    DaemonBusy,
    DaemonNotRunning,
    DeadlineExceeded,
    P2PError,
    PayloadTooLarge,
)
from .home import Home
from .ipc import messages as m
from .ipc.latency_trace import (
    TRACING,
    trace_point,
)
from .ipc.request_channel import (
    RequestChannel,
    decode_answer,
)
from .ipc.transport.base import (
    TransportName,
    choose_transport,
)
from .keys import PublicKey
from .limits import (
    DEFAULT_CALL_TIMEOUT,
    DEFAULT_INSTANCE,
    MAX_CALL_TIMEOUT,
    MAX_INITIAL,
    PROTOCOL_VERSION,
    SESSION_WINDOW,
)
from .retry import CallRetry
from .session.client_sessions import (
    ClientSessions,
    error_from_reply,
)
from .session.session import Session
from .tickets import Ticket

__all__ = ["Client", "call", "connect", "shared_client"]

T = TypeVar("T")

DEFAULT_CONTROL_TIMEOUT: Final = 60.0
_HELLO_TIMEOUT: Final = 10.0
_REACH_TIMEOUT: Final = 10.0
"""Seconds after which a gateway that does not answer is reported, however long the request itself may take."""
_LOOK_INTERVAL: Final = 0.1
"""Seconds between two looks at whether the daemon is still there, while waiting for one of its processes."""
_BUSY_AFTER: Final = 0.5
"""Seconds after which a process of the daemon that has not been reached is called busy; before, the time was too short
to know."""
_ADVANCE: Final = 0.02
"""Seconds by which a call's deadline at the daemon comes before ours: it knows better why there is no answer."""

_control_reply: Final = msgspec.msgpack.Decoder(m.ControlReply)
_data_reply: Final = msgspec.msgpack.Decoder(m.DataMessage)
_encode_payload: Final = msgspec.msgpack.Encoder().encode
_REPLY: Final = m.encode(m.Reply())


def _check_timeout(timeout: float) -> None:
    """Raise DeadlineExceeded where no time is left, or none is said (NaN): nothing is sent then."""
    if not timeout > 0:
        raise DeadlineExceeded(seconds=timeout)


@lru_cache(maxsize=256)
def _decoder(returns: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(returns)


def _close_all(links: list[RequestChannel]) -> None:
    for link in links:
        link.close()


class Client(LoopBound):
    """A program's connection to the daemon.

    From its first use until ``close`` it belongs to one event loop of one process: elsewhere, also in a forked child,
    every method but ``close`` raises ``UsedElsewhere`` and sends nothing. ``call`` and ``connect`` of this module find
    a client of their own wherever they are used.

    ::

        async with Client() as client:
            reply = await client.call("alice", peer, "Echo", request={"message": "hi"})

    Args:
        home: the daemon's home directory; default ``$FASTN_HOME``, else ``~/.fastn``.
        program: what ``status`` calls this program, at most 64 characters.
        transport: ``"native"`` or ``"pyzmq"``, default ``$FASTN_TRANSPORT``, else
            ``"native"``.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    """The one that it belongs to; None before the first use, in a forked child, and when ``__init__`` has raised."""

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
        self._control: RequestChannel | None = None
        self._data: RequestChannel | None = None
        self._route = Path()
        """Path of the data plane's socket."""
        self._welcomed = asyncio.Event()
        self._rejected: P2PError | None = None
        self._hello: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[bool] | None = None
        """Looks whether there is a daemon, while something waits for it."""
        self._waiting = 0
        self._sessions = ClientSessions()
        self._pid = 0
        """The process that it belongs to; 0 before the first use."""
        self._made_at = place_of_caller()
        self._keeper: AsyncGenerator[None, None] | None = None
        """Closes it at the end of its loop, if no program can: it is the one that ``call`` and ``connect`` share."""

    def __repr__(self) -> str:
        return f"<Client of {self.home.path}, made at {self._made_at}>"

    def __del__(self) -> None:
        loop = self._loop
        if loop is None or self._control is None:
            return
        links = [link for link in (self._control, self._data) if link is not None]
        if loop.is_closed():
            _close_all(links)
        else:
            with suppress(RuntimeError):  # it ends in this moment
                loop.call_soon_threadsafe(_close_all, links)
        if self._keeper is None:
            warnings.warn(f"unclosed {self!r}. Use `with`, or call close()", ResourceWarning, stacklevel=2, source=self)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what is in flight, sessions too, with ``ConnectionLost``. A closed client opens again when used, in any
        event loop and process.

        May be called anywhere: while the client's event loop runs in another thread, it closes there a moment later.
        In a forked child the client of the parent is not touched.
        """
        loop = self._loop
        if loop is not None and loop.is_running() and loop is not running_loop():
            with suppress(RuntimeError):  # it ends in this moment
                loop.call_soon_threadsafe(self.close)
            return
        if loop is not None:
            if self._hello is not None and not loop.is_closed():
                self._hello.cancel()
            _close_all([link for link in (self._control, self._data) if link is not None])
            if not loop.is_closed():
                self._sessions.connection_lost()
        if loop is None or loop.is_closed():
            self._watch = None  # else it ends by itself
        self._control = self._data = self._hello = self._rejected = self._loop = None
        self._pid = 0
        self._sessions = ClientSessions()
        self._welcomed = asyncio.Event()

    def _after_fork(self) -> None:
        self._loop = None

    def _claim(self) -> asyncio.AbstractEventLoop:
        """Belong to the running event loop from now on, if to none yet.

        Raises:
            UsedElsewhere: it belongs to another one, or to another process.
        """
        if self._pid:
            raise used_elsewhere("this client", self._pid, self._loop)
        self._loop = loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._track()
        release_ended()
        return loop

    async def start(self, *, timeout: float = DEFAULT_CONTROL_TIMEOUT) -> None:
        """Say hello and wait until calls can be made. Calls and sessions do this by themselves.

        Raises:
            DaemonNotRunning: nothing holds the home's lock.
            DaemonBusy: the daemon lives, but one of its processes does not answer in time.
            VersionMismatch: the daemon speaks another version.
        """
        if running_loop() is not self._loop:
            self._claim()
        _check_timeout(timeout)
        await self._reach_data(asyncio.get_running_loop().time() + timeout, timeout)

    async def control(
        self, message: m.ControlRequest, payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> m.ControlReply:
        """Ask the gateway for one thing of the control plane; see ``fastn_p2p_client.ipc.messages``.

        Raises:
            P2PError: what went wrong, as the class that its code stands for.
        """
        return (await self.control_with_payload(message, payload, timeout=timeout))[0]

    async def control_with_payload(
        self, message: m.ControlRequest, payload: bytes = b"", *, timeout: float = DEFAULT_CONTROL_TIMEOUT
    ) -> tuple[m.ControlReply, bytes]:
        """The same for an answer that has a payload too."""
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        _check_timeout(timeout)
        deadline = loop.time() + timeout
        link = await self._reach_control(min(deadline, deadline - timeout + _REACH_TIMEOUT), timeout)
        try:
            answer = await link.request_encoded(m.encode(message), payload, self._left(deadline, timeout))
        except ConnectionLost:
            self._check_daemon()
            raise
        reply: m.ControlReply = decode_answer(_control_reply, answer.header)
        if isinstance(reply, m.ErrorReply):
            raise reply.error()
        return reply, answer.payload

    @overload
    async def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = ...,
        request: Any = ...,
        *,
        command: str = ...,
        returns: type[T],
        timeout: float = ...,
        retry: bool = ...,
    ) -> T: ...
    @overload
    async def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = ...,
        request: Any = ...,
        *,
        command: str = ...,
        timeout: float = ...,
        retry: bool = ...,
    ) -> Any: ...
    async def call(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        request: Any = None,
        *,
        command: str = "",
        returns: Any = Any,
        timeout: float = DEFAULT_CALL_TIMEOUT,
        retry: bool = False,
    ) -> Any:
        """Call a protocol of ``peer`` and wait for its reply.

        Args:
            identity: name of the local identity that calls; None for the only one online.
            peer: a ``PublicKey``, an ID52, a ticket, or a name from the address book.
            protocol: for instance ``"Echo"``.
            instance: which instance of it, ``"default"`` unless the peer says otherwise.
            request: a msgspec Struct, a dataclass or JSON-like values.
            command: which of the protocol's commands, for instance ``"settings.add-forwarding"``; by default its
                request handler.
            returns: what the reply is decoded to and checked against.
            timeout: seconds until the call ends with ``DeadlineExceeded``, at most 3600.
            retry: whether it is sent again, until the timeout, when a process or connection that had it is lost, when
                whoever serves is not there yet, and after any error that is ``retryable``. It is still executed once
                as long as the process that serves it lives; one that dies with it may have executed it, and another
                one then does so again, under the same ``call_id``.

        Raises:
            ApplicationError: the handler refused, on purpose.
            P2PError: everything else; see ``fastn_p2p_client.errors`` for the tree.
        """
        if TRACING:
            trace_point("1 program: call")
        _check_timeout(timeout)
        timeout = min(timeout, MAX_CALL_TIMEOUT)
        payload = _encode_payload(request)
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        deadline = loop.time() + timeout
        target = identity or "", str(peer), protocol, instance
        if not retry:
            return await self._call(target, command, payload, returns, deadline, timeout)
        repetition = CallRetry(deadline, timeout)
        while True:
            try:
                return await self._call(
                    target, command, payload, returns, deadline, timeout, repetition.call_id, repetition.attempt
                )
            except P2PError as error:
                await repetition.wait_or_raise(error)

    async def _call(
        self,
        target: tuple[str, str, str, str],
        command: str,
        payload: bytes,
        returns: Any,
        deadline: float,
        timeout: float,
        call_id: bytes = b"",
        attempt: int = 0,
    ) -> Any:
        """One attempt. ``target``: who calls, the peer, the protocol and the instance, as in ``Call``."""
        answer = None
        while answer is None:
            link = self._data
            left = timeout
            if link is None or not link.connected.is_set():
                link = await self._reach_data(deadline, timeout)
                left = self._left(deadline, timeout)
            elif attempt:
                left = self._left(deadline, timeout)
            advanced = left - min(_ADVANCE, left / 10)
            header = m.encode(m.Call(*target, int(advanced * 1000), command, call_id, attempt))
            try:
                answer = await link.request_encoded(header, payload, left)
            except DaemonBusy:
                continue  # the connection ended before anything was sent
            except DeadlineExceeded:
                raise DeadlineExceeded(seconds=timeout) from None
            except ConnectionLost:
                if not call_id:
                    self._check_daemon()
                raise
        if TRACING:
            trace_point("8 program: reply")
        if answer.header == _REPLY:
            try:
                return _decoder(returns).decode(answer.payload)
            except m.UNDECODABLE as error:
                raise BadReply(protocol=target[2], reason=str(error)) from error
        failure = error_from_reply(decode_answer(_data_reply, answer.header), answer.payload)
        if isinstance(failure, DeadlineExceeded) and asyncio.get_running_loop().time() > deadline - 2 * _ADVANCE:
            raise DeadlineExceeded(seconds=timeout)  # ours, not that of a call of the handler's
        raise failure

    async def connect(
        self,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        protocol: str,
        instance: str = DEFAULT_INSTANCE,
        initial: Any = None,
        *,
        timeout: float = DEFAULT_CALL_TIMEOUT,
    ) -> Session:
        """Open a session with a protocol of ``peer``; it stands when this returns.

        ::

            async with await client.connect("alice", "bob", "FileTransfer", initial="report.pdf") as session:
                await session.copy_to(file)

        Args:
            identity, peer, protocol, instance: as in ``call``.
            initial: what the handler is given besides the session, encoded like a request; at most 64 KiB.
            timeout: seconds until the session must stand, at most 3600. Afterwards it lasts as long as both sides want.

        Raises:
            ApplicationError: the handler refused, on purpose.
            P2PError: everything else; see ``fastn_p2p_client.errors`` for the tree.
        """
        _check_timeout(timeout)
        timeout = min(timeout, MAX_CALL_TIMEOUT)
        payload = _encode_payload(initial)
        if len(payload) > MAX_INITIAL:
            raise PayloadTooLarge(size=len(payload), limit=MAX_INITIAL)
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        deadline = loop.time() + timeout
        while True:
            link = await self._reach_data(deadline, timeout)
            left = self._left(deadline, timeout)
            advanced = left - min(_ADVANCE, left / 10)
            message = m.OpenSession(identity or "", str(peer), protocol, instance, int(advanced * 1000), SESSION_WINDOW)
            try:
                session = await self._sessions.open(link, message, payload, left)
            except DaemonBusy:
                continue  # the connection ended before anything was sent
            except DeadlineExceeded:
                raise DeadlineExceeded(seconds=timeout) from None
            except ConnectionLost:
                self._check_daemon()
                raise
            session._belong_to(self)
            return session

    async def wait_until_online(self, identity: str | None, peer: str | PublicKey | Ticket, *, timeout: float) -> None:
        """Return once ``peer`` can be called: at once when it is online, else as soon as it is.

        It waits through restarts of the daemon's processes, and for daemons that have not been started yet. Whether
        the peer serves some protocol, only a call tells; it may also have left again until then.

        Args:
            identity, peer: as in ``call``. The identity must be online.
            timeout: seconds, at most 3600.

        Raises:
            DeadlineExceeded: the peer did not come online in time.
            PeerUnknown: there is no such name in the address book.
            P2PError: what else a call would end with that cannot be right however long it waits.
        """
        _check_timeout(timeout)
        timeout = min(timeout, MAX_CALL_TIMEOUT)
        if (loop := running_loop()) is not self._loop or loop is None:
            loop = self._claim()
        deadline = loop.time() + timeout
        answer = None
        while answer is None:
            link = await self._reach_data(deadline, timeout)
            left = self._left(deadline, timeout)
            try:
                answer = await link.request_encoded(
                    m.encode(m.WaitForPeer(identity or "", str(peer), int(left * 1000))), b"", left
                )
            except DaemonBusy:
                continue  # the connection ended before anything was sent
            except DeadlineExceeded:
                raise DeadlineExceeded(seconds=timeout) from None
            except ConnectionLost:
                self._check_daemon()
                if link is not self._data:
                    raise  # the client was closed
        reply = decode_answer(_data_reply, answer.header)
        if isinstance(reply, m.Ack):
            return
        failure = error_from_reply(reply, answer.payload)
        raise DeadlineExceeded(seconds=timeout) if isinstance(failure, DeadlineExceeded) else failure

    # ── reaching the daemon ──────────────────────────────────────────────────────────────────────

    def _check_daemon(self) -> None:
        if self.home.daemon_pid() is None:
            raise DaemonNotRunning(home=str(self.home.path))

    @staticmethod
    def _left(deadline: float, timeout: float) -> float:
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise DeadlineExceeded(seconds=timeout)
        return left

    async def _reach_control(self, deadline: float, timeout: float) -> RequestChannel:
        if self._control is None:
            self._check_daemon()
            self._rejected = None
            self._control = RequestChannel(
                self.home.find_control_socket,
                "gateway",
                on_up=weakly(self._say_hello) if self._keeper is None else self._say_hello,
                on_down=self._welcomed.clear,
                transport=self.transport,
            )
            self._control.open()
        await self._await_event(self._welcomed, "gateway", deadline, timeout)
        return self._control

    async def _reach_data(self, deadline: float, timeout: float) -> RequestChannel:
        if self._data is None:
            await self._reach_control(deadline, timeout)
        if self._data is None:
            raise DaemonBusy(actor="gateway")
        await self._await_event(self._data.connected, "network", deadline, timeout)
        return self._data

    async def _await_event(self, event: asyncio.Event, actor: str, deadline: float, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not event.is_set():
            if (refusal := self._refusal()) is not None:
                raise refusal
            left = deadline - loop.time()
            if left <= 0:
                if loop.time() - began < _BUSY_AFTER:
                    raise DeadlineExceeded(seconds=timeout)
                raise DaemonBusy(actor=actor)
            if self._watch is None:
                self._watch = loop.create_task(self._watch_daemon())
            watch, coming = self._watch, loop.create_task(event.wait())
            self._waiting += 1
            try:
                await asyncio.wait((coming, watch), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                coming.cancel()
                self._waiting -= 1
                if self._watch is watch and (watch.done() or not self._waiting):
                    watch.cancel()
                    self._watch = None
            if watch.done() and not watch.cancelled() and watch.result() and not event.is_set():
                raise DaemonNotRunning(home=str(self.home.path))

    def _refusal(self) -> P2PError | None:
        """Why waiting is pointless: the daemon has rejected us, or a socket is not this user's daemon's."""
        links = (self._control, self._data)
        return self._rejected or next((each.refusal for each in links if each is not None and each.refusal), None)

    async def _watch_daemon(self) -> bool:
        """Returns once there is no daemon, with True, or it has rejected us. It looks for all that wait: were each to
        look, thousands of calls would leave no time for what they wait for."""
        while self._refusal() is None:
            await asyncio.sleep(_LOOK_INTERVAL)
            if self.home.daemon_pid() is None:
                return True
        return False

    def _say_hello(self) -> None:
        self._hello = asyncio.get_running_loop().create_task(self._greet())

    async def _greet(self) -> None:
        if self._control is None:
            return
        hello = m.encode(m.Hello(PROTOCOL_VERSION, self._program))
        try:
            answer = await self._control.request_encoded(hello, b"", _HELLO_TIMEOUT)
            reply = decode_answer(_control_reply, answer.header)
        except DeadlineExceeded:
            self._say_hello()
            return
        except P2PError:
            return  # the link comes up again, and says hello again
        if isinstance(reply, m.ErrorReply):
            self._rejected = reply.error()
        elif isinstance(reply, m.Welcome):
            self._rejected = None
            route = Path(os.fsdecode(reply.data_route.encode()))  # where the file system's encoding is not UTF-8 too
            if self._data is None or self._route != route:
                if self._data is not None:
                    self._data.close()
                self._route = route
                self._data = RequestChannel(
                    route,
                    "network",
                    on_message=self._sessions.on_message,
                    on_down=self._sessions.connection_lost,
                    transport=self.transport,
                )
                self._data.open()
            self._welcomed.set()


# ── one client for each event loop ───────────────────────────────────────────────────────────────

_shared: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[Home, Client]]] = WeakKeyDictionary()
"""Weak on both sides: an open one is held by its event loop, through its connection, and goes with it."""


async def _close_at_end(client: ref[Client]) -> AsyncGenerator[None, None]:
    """Event loops close such generators at their end, after all tasks."""
    try:
        yield
    finally:
        if (found := client()) is not None:
            found.close()


def shared_client(home: Home | None = None, *, program: str = "") -> Client:
    """The running loop's client for ``home``, or for the current ``$FASTN_HOME``; closed when the loop ends."""
    loop = asyncio.get_running_loop()
    clients = _shared.get(loop)
    if clients is None:
        clients = _shared.setdefault(loop, WeakValueDictionary())
    home = home or Home.find()
    client = clients.get(home)
    if client is None:
        client = clients[home] = Client(home, program=program)
        client._keeper = keeper = _close_at_end(ref(client))
        with suppress(StopIteration):
            keeper.__anext__().send(None)  # until it yields: from now on the loop knows it
    return client


@overload
async def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = ...,
    request: Any = ...,
    *,
    command: str = ...,
    returns: type[T],
    timeout: float = ...,
    retry: bool = ...,
) -> T: ...
@overload
async def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = ...,
    request: Any = ...,
    *,
    command: str = ...,
    timeout: float = ...,
    retry: bool = ...,
) -> Any: ...
async def call(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = DEFAULT_INSTANCE,
    request: Any = None,
    *,
    command: str = "",
    returns: Any = Any,
    timeout: float = DEFAULT_CALL_TIMEOUT,
    retry: bool = False,
) -> Any:
    """``Client.call`` on a client that all calls of this event loop share. Same arguments, same errors."""
    return await shared_client().call(
        identity, peer, protocol, instance, request, command=command, returns=returns, timeout=timeout, retry=retry
    )


async def connect(
    identity: str | None,
    peer: str | PublicKey | Ticket,
    protocol: str,
    instance: str = DEFAULT_INSTANCE,
    initial: Any = None,
    *,
    timeout: float = DEFAULT_CALL_TIMEOUT,
) -> Session:
    """``Client.connect`` on this event loop's shared client, which serves the home in ``$FASTN_HOME``."""
    return await shared_client().connect(identity, peer, protocol, instance, initial, timeout=timeout)
