"""Target of a call, a session or a wait of a local program: a binding of this daemon, a connection to a peer daemon, or
another attempt after the next registration. The identity that calls is found first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from msgspec.structs import replace

from fastn_p2p_client.errors import (
    ConnectionLost,
    HomeAway,
    IdentityOffline,
    InternalError,
    NoIdentityOnline,
    OutcomeUnknown,
    P2PError,
    PeerOffline,
)
from fastn_p2p_client.ipc.messages import Call, OpenSession

from ..connections.connection import PeerConnection
from ..serving.registration_grace import RegistrationGrace
from ..serving.registry import OnlineIdentity, RegisteredBinding, Registry
from ..wire import messages as wire
from .answered_bindings import AnsweredBindings
from .missing_bindings import MissingBindings
from .router import PeerRouter, display_name
from .search import Search
from .spread_bindings import SpreadBindings

log = logging.getLogger(__name__)

_RETURN_TIMEOUT: Final = 2.0
"""Seconds that the daemon which may have executed a call gets to come back, for instance after a restart. Another
daemon answers meanwhile, so the program need not wait longer to be told."""

MAX_HOPS: Final = 3
"""Times that a request goes on to the home which a daemon names: homes move, and daemons may lie."""

_SILENT_TIMEOUT: Final = 0.1
"""The same for a daemon that has been silent for longer already."""

_CONNECT_TIMEOUT: Final = 5.0
"""Seconds to connect to the other daemons of an identity whose binding keeps nothing."""

M = TypeVar("M", Call, OpenSession)
M_contra = TypeVar("M_contra", Call, OpenSession, contravariant=True)


class Seeker(Protocol[M_contra]):
    """A call or a session whose target is being found. It ends with one of ``on_binding``, ``on_connection`` and
    ``on_error``, or is done before.

    Attributes:
        connecting_to: name of the peer while there is no connection to it; "" otherwise.
        search: record of the attempts to reach the peer.
        cancel: stops the attempts.
    """

    connecting_to: str
    search: Search | None
    cancel: Callable[[], object] | None

    @property
    def done(self) -> bool:
        """True if nothing waits for the target any more."""
        ...

    def hold(self, payload: bytes) -> bool:
        """Keep the payload while the target is being found. Return False after a failure: too much waits already."""
        ...

    def release_payload(self) -> bytes:
        """Return the payload that was kept, and keep it no longer."""
        ...

    def on_binding(self, source: OnlineIdentity, target: bytes, message: M_contra, payload: bytes) -> None:
        """The target is a registered binding of this daemon."""
        ...

    def on_connection(
        self, connection: PeerConnection, source: OnlineIdentity, target: bytes, message: M_contra, payload: bytes
    ) -> None:
        """Use the connection that reaches the target."""
        ...

    def on_error(self, error: P2PError) -> None:
        """Report that no target was found."""
        ...


class TargetFinder:
    """Find the targets of local programs' calls, sessions and waits.

    A target that is known already is found without a task, a future or a result object: ``find`` calls the seeker
    before it returns, because every call of a program passes here.
    """

    def __init__(self, registry: Registry, router: PeerRouter, grace: RegistrationGrace) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._router = router
        self._grace = grace
        self._tasks: set[asyncio.Task[None]] = set()
        self._missing = MissingBindings()
        self._served = AnsweredBindings()
        self._spread = SpreadBindings()

    def close(self) -> None:
        """Stop connecting: seekers that wait for a connection fail with ``ConnectionLost``."""
        for task in self._tasks:
            task.cancel()

    def find(self, seeker: Seeker[M], message: M, payload: bytes) -> None:
        """Find the target that ``message`` names and report it to ``seeker``, before this returns if it is known."""
        try:
            source = self._registry.calling_identity(message.identity)
            target = self._router.parse_peer(message.peer, message.protocol, message.instance)
        except (IdentityOffline, NoIdentityOnline) as error:
            self._find_later(seeker, message, payload, error)
            return
        except P2PError as error:
            seeker.on_error(error)
            return
        if self._registry.by_key(target) is not None:
            found = self._registry.find(target, message.protocol, message.instance)
            if isinstance(found, RegisteredBinding):
                homes = self._registry.homes
                away = homes.elsewhere(found) if homes and source.raw != target else None
                if away is None:
                    seeker.on_binding(source, target, message, payload)
                elif not self.go_home(seeker, source, target, b"", message, payload, away):
                    seeker.on_error(away)
            else:  # its identity may be online a moment before its bindings
                self._find_later(seeker, message, payload, found)
            return
        connection = self._router.open_to(target)
        if connection is not None:
            if self._spread and self._spread.includes(target, message.protocol, message.instance):
                connection = self._choose(target, message, connection)
            if self._missing and self._is_missing(target, connection.endpoint, message):
                if seeker.hold(payload):
                    self._go_over(seeker, source, target, message, connection, None)
                return
            seeker.on_connection(connection, source, target, message, payload)
        elif seeker.hold(payload):
            seeker.connecting_to = display_name(target, message.peer)
            seeker.cancel = self._run(self._connect(seeker, source, target, message))

    def find_peer(self, identity: str, peer: str, again: Callable[[], None]) -> tuple[bytes, bool] | None:
        """Find only a peer: no binding of it, and no connection.

        Args:
            identity, peer: as in ``WaitForPeer``.
            again: called after the next registration if the calling identity is not online yet.

        Returns:
            The peer's key, and whether it is an online identity of this daemon; None if ``again`` will be called.

        Raises:
            P2PError: there is no such identity or peer.
        """
        try:
            self._registry.calling_identity(identity)
            target = self._router.parse_peer(peer)
            self._router.check_usable(target)
        except (IdentityOffline, NoIdentityOnline):
            if not self._grace.is_open():
                raise
            self._grace.retry_later(again)
            return None
        return target, self._registry.by_key(target) is not None

    def has_others(self, target: bytes, endpoint: bytes) -> bool:
        """Return whether daemons with other endpoints may serve an identity."""
        return self._router.has_others(target, (endpoint,))

    def is_at_several(self, target: bytes) -> bool:
        """Return whether an identity was found at several daemons, so that ``go_over`` may help."""
        return target in self._router.several

    def may_refuse(self, target: bytes, endpoint: bytes, message: Call) -> bool:
        """Return whether a daemon may refuse a call that another one may serve: the identity is known to be at several
        daemons, or this one has not answered a call to the binding before."""
        return self.is_at_several(target) or not self._served.includes(
            target, endpoint, message.protocol, message.instance
        )

    def on_served(self, target: bytes, endpoint: bytes, message: Call) -> None:
        """A daemon has answered a call."""
        self._served.add(target, endpoint, message.protocol, message.instance)

    def on_refused(self, target: bytes, endpoint: bytes) -> None:
        """A daemon has refused a call whose payload was not kept. The next one is."""
        self._served.discard(target, endpoint)

    def go_over(
        self,
        seeker: Seeker[M],
        source: OnlineIdentity,
        target: bytes,
        endpoint: bytes,
        message: M,
        payload: bytes,
        error: P2PError,
    ) -> bool:
        """A daemon lacks the binding of a request: send it to another daemon of the identity. Return whether there is
        one.

        Args:
            endpoint: of the daemon that lacks it.
            message: the request, with the time that is left.
            error: error of that daemon, for the seeker if no other one answers.
        """
        self._missing.add(target, endpoint, message.protocol, message.instance)
        missing = self._missing.endpoints(target, message.protocol, message.instance)
        if not self._router.has_others(target, missing):
            return False
        if seeker.hold(payload):
            self._go_over(seeker, source, target, message, None, error)
        return True

    def go_home(
        self,
        seeker: Seeker[M],
        source: OnlineIdentity,
        target: bytes,
        endpoint: bytes,
        message: M,
        payload: bytes,
        error: HomeAway,
    ) -> bool:
        """A daemon has refused a request because another one is the home of the binding: send it there. Return False
        if the error names no other one.

        Only daemons that have a delegation of the identity are connected to, whatever the error names.

        Args:
            endpoint: of the daemon that has refused; empty for this one.
            message: the request, with the time that is left.
            error: error of that daemon, for the seeker if the home is not reached within 2 seconds, or half of the time
                that is left.
        """
        binding = message.protocol, message.instance
        if endpoint:
            self._missing.add(target, endpoint, *binding)
        try:
            home = bytes.fromhex(error.endpoint)
        except (TypeError, ValueError):
            return False
        if not home or home == endpoint:
            return False
        self._missing.set_home(target, home, *binding)
        if self._router.is_silent(home):
            return False
        if seeker.hold(payload):
            seconds = min(_RETURN_TIMEOUT, message.deadline_ms / 2000)
            self._start(seeker, self._connect_to(seeker, source, target, home, message, error, seconds))
        return True

    def _start(self, seeker: Seeker[M], work: Coroutine[Any, Any, None]) -> None:
        """Run what finds the target of a seeker that holds its payload."""
        seeker.connecting_to = ""
        seeker.cancel = self._run(work)

    def _run(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Run work as a task, and return what cancels it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

    def _is_missing(self, target: bytes, endpoint: bytes, message: Call | OpenSession) -> bool:
        """Return whether a daemon does not serve a binding, and another one may. If the home is silent, the daemon says
        for how long, or that the home has moved."""
        if endpoint not in self._missing.endpoints(target, message.protocol, message.instance):
            return False
        home = self._missing.home(target, message.protocol, message.instance)
        return home is None or not self._router.is_silent(home)

    def _go_over(
        self,
        seeker: Seeker[M],
        source: OnlineIdentity,
        target: bytes,
        message: M,
        connection: PeerConnection | None,
        error: P2PError | None,
    ) -> None:
        self._start(seeker, self._connect_beside(seeker, source, target, message, connection, error))

    async def _connect_beside(
        self,
        seeker: Seeker[M],
        source: OnlineIdentity,
        target: bytes,
        message: M,
        connection: PeerConnection | None,
        error: P2PError | None,
    ) -> None:
        """Use another daemon than those that lack the binding. If none answers, use the connection, or fail."""
        left = self._grace.remaining_ms(message.deadline_ms)
        missing = self._missing.endpoints(target, message.protocol, message.instance)
        found = connection
        try:
            async with asyncio.timeout(_RETURN_TIMEOUT):
                found = await self._router.connect_beside(target, missing)
        except (P2PError, TimeoutError):
            if connection is None or connection.closed:
                seeker.on_error(error or ConnectionLost(what="the connection to the peer"))
                return
        except asyncio.CancelledError:
            seeker.on_error(ConnectionLost(what="the daemon's network process"))
            raise
        if found is not None and not seeker.done:
            self._send(seeker, found, source, target, replace(message, deadline_ms=left()))

    def on_spread_requests(self, endpoint: bytes, message: wire.SpreadRequests) -> None:
        """A daemon has said that any daemon may serve requests to a binding. Ignore it unless the identity is there."""
        if any(each.endpoint == endpoint for each in self._router.all_open_to(message.identity)):
            self._spread.add(message.identity, message.protocol, message.instance)

    def _choose(self, target: bytes, message: Call | OpenSession, usual: PeerConnection) -> PeerConnection:
        """Return the connection to the daemon with the least to do, for a request that any daemon may serve. Only the
        first attempt of a call is such a request.

        Args:
            usual: connection to the daemon that serves other requests to the identity.
        """
        if isinstance(message, Call) and message.attempt:
            return usual
        if self._spread.must_connect(target):
            self._run(self._connect_to_all(target, usual))
        if not self.is_at_several(target):
            return usual
        missing = self._missing.endpoints(target, message.protocol, message.instance)
        found = [each for each in self._router.all_open_to(target) if each.endpoint not in missing]
        return self._spread.choose(found) if found else usual

    async def _connect_to_all(self, target: bytes, usual: PeerConnection) -> None:
        """Connect to all daemons that serve an identity. Other requests go on over their usual connection."""
        with suppress(P2PError, TimeoutError):
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                while True:
                    connected = frozenset(each.endpoint for each in self._router.all_open_to(target))
                    await self._router.connect_beside(target, connected | {usual.endpoint})

    def on_offline(self, target: bytes, endpoint: bytes) -> None:
        """A daemon has answered that an identity is not online there."""
        self._router.on_offline(target, endpoint)

    def find_endpoint(
        self, seeker: Seeker[M], source: OnlineIdentity, target: bytes, endpoint: bytes, message: M, payload: bytes
    ) -> None:
        """Find a connection to one of the daemons that serve an identity. It may have executed the seeker's call.

        If there is none within 2 seconds, find one to another daemon: it may share claims with the first one. If there
        is none either, the seeker fails with ``OutcomeUnknown``.
        """
        if seeker.hold(payload):
            self._start(seeker, self._return_to(seeker, source, target, endpoint, message))

    async def _return_to(
        self, seeker: Seeker[M], source: OnlineIdentity, target: bytes, endpoint: bytes, message: M
    ) -> None:
        left = self._grace.remaining_ms(message.deadline_ms)
        seconds = _SILENT_TIMEOUT if self._router.is_silent(endpoint) else _RETURN_TIMEOUT
        try:
            try:
                async with asyncio.timeout(seconds):
                    connection = await self._router.connect_to(target, endpoint)
            except (P2PError, TimeoutError):
                async with asyncio.timeout(_RETURN_TIMEOUT):
                    connection = await self._router.connect_beside(target, frozenset((endpoint,)))
        except (P2PError, TimeoutError):
            seeker.on_error(OutcomeUnknown(peer=display_name(target, message.peer)))
            return
        except asyncio.CancelledError:
            seeker.on_error(ConnectionLost(what="the daemon's network process"))
            raise
        if not seeker.done:
            self._send(seeker, connection, source, target, replace(message, deadline_ms=left()))

    async def _connect_to(
        self,
        seeker: Seeker[M],
        source: OnlineIdentity,
        target: bytes,
        endpoint: bytes,
        message: M,
        error: P2PError,
        seconds: float,
    ) -> None:
        """Use the daemon at an endpoint. If it is not reached within so many seconds, fail with ``error``."""
        left = self._grace.remaining_ms(message.deadline_ms)
        try:
            async with asyncio.timeout(seconds):
                connection = await self._router.connect_to(target, endpoint)
        except (P2PError, TimeoutError):
            seeker.on_error(error)
            return
        except asyncio.CancelledError:
            seeker.on_error(ConnectionLost(what="the daemon's network process"))
            raise
        if not seeker.done:
            self._send(seeker, connection, source, target, replace(message, deadline_ms=left()))

    def _find_later(self, seeker: Seeker[M], message: M, payload: bytes, error: P2PError) -> None:
        """Try again after the next registration; fail with ``error`` if none is expected."""
        if not self._grace.is_open():
            seeker.on_error(error)
            return
        if not seeker.hold(payload):
            return
        left = self._grace.remaining_ms(message.deadline_ms)

        def again() -> None:
            if not seeker.done:
                self.find(seeker, replace(message, deadline_ms=left()), seeker.release_payload())

        self._grace.retry_later(again)

    async def _connect(self, seeker: Seeker[M], source: OnlineIdentity, target: bytes, message: M) -> None:
        left = self._grace.remaining_ms(message.deadline_ms)
        search = seeker.search = seeker.search or Search(self._loop.time())
        try:
            connection = await self._router.connect(target, message.peer, search)
        except PeerOffline as error:
            self._find_later(seeker, message, seeker.release_payload(), error)
            return
        except P2PError as error:
            seeker.on_error(error)
            return
        except asyncio.CancelledError:
            seeker.on_error(ConnectionLost(what="the daemon's network process"))
            raise
        except Exception:
            log.exception("cannot find the peer %s", message.peer[:64])
            seeker.on_error(InternalError(reason="the network process could not find the peer; its log says why"))
            return
        if seeker.done:
            return
        seeker.connecting_to = ""
        self._send(seeker, connection, source, target, replace(message, deadline_ms=left()))

    def _send(
        self, seeker: Seeker[M], connection: PeerConnection, source: OnlineIdentity, target: bytes, message: M
    ) -> None:
        """Report the connection that was found to a seeker whose payload was kept."""
        payload = seeker.release_payload()
        if self._registry.by_key(source.raw) is source:
            seeker.on_connection(connection, source, target, message, payload)
        else:  # its process has ended meanwhile, so nothing can prove that it speaks through this daemon
            self.find(seeker, message, payload)
