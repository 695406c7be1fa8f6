"""Routes: a worker that connects with a token takes the one session that an identity's process has given to it.

::

    identity's process                    network process                          worker
        RouteSession(hash of a token)  ->
                                       <- SessionRoute: where it has to connect
        ... over NATS: connect there ................................................>
                                          RedeemRoute(token), over TLS            <-
                                       -> Cancel: the session has gone
                                          DeliverSession, then bytes              ->

The worker makes the token, so it passes the network once: over TLS, to the daemon that has the pinned certificate.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from fastn_p2p_client.errors import Forbidden, P2PError, TokenRefused
from fastn_p2p_client.ipc.messages import Ack, ErrorReply, RedeemRoute, RouteSession, SessionRoute, encode
from fastn_p2p_client.worker_token import HASH_BYTES, token_hash

from ...runtime.mailbox import Mailbox, Sender
from ..sessions.local_leg import LocalLeg
from ..sessions.manager import SessionManager
from ..sessions.relay import SessionRelay
from .worker_access import WorkerAccess
from .worker_listener import WorkerListener

ROUTE_SECONDS: Final = 5.0
"""Seconds for which a token counts."""
MAX_ROUTES: Final = 1024
"""Tokens that count at the same time."""
MAX_ROUTES_OF_PROCESS: Final = 64
"""Limit for one identity's process."""
END_SECONDS: Final = 10.0
"""Seconds after the end of a session in which its worker may read the rest. It ends the connection itself."""
_NO_LISTENER: Final = (
    "the daemon does not listen for them. Set where, and start it again: fastn-p2p config set worker.listen HOST:PORT"
)


class _Route:
    __slots__ = ("relay", "sender", "timer")

    def __init__(self, relay: SessionRelay, sender: Sender, timer: asyncio.TimerHandle) -> None:
        self.relay = relay
        self.sender = sender
        self.timer = timer


class SessionRoutes:
    """Sessions that wait for workers.

    Args:
        mailbox: of the network process.
        listener: the port at which workers connect.
        access: what a worker may send.
        sessions: all sessions.
        seconds: time for which a token counts.

    Attributes:
        taken: sessions that workers have taken.
        refused: tokens that did not count: shown before, too late, for another binding, or made up.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        listener: WorkerListener,
        access: WorkerAccess,
        sessions: SessionManager,
        seconds: float = ROUTE_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox = mailbox
        self._listener = listener
        self._access = access
        self._sessions = sessions
        self._seconds = seconds
        self._routes: dict[bytes, _Route] = {}
        self.taken = self.refused = 0

    def __len__(self) -> int:
        return len(self._routes)

    def on_route(self, sender: Sender, correlation: bytes, message: RouteSession) -> None:
        """Let the worker with a token take a session of an identity's process. Drop it if the session has ended."""
        relay = self._sessions.served_session(sender, correlation)
        if relay is None or relay.opened or sender.identity is None:
            return
        sender.answered_at = time.monotonic()
        self._listener.open()
        if not self._listener.address:
            answer = SessionRoute(problem=self._listener.problem or _NO_LISTENER)
        elif not self._may_add(sender, message.token_hash):
            answer = SessionRoute(problem="too many sessions wait for workers")
        else:
            self._add(relay, sender, message.token_hash)
            answer = SessionRoute(self._listener.address, self._listener.fingerprint)
        self._mailbox.send(sender, correlation, encode(answer))

    def _may_add(self, sender: Sender, hashed: bytes) -> bool:
        own = sum(each.sender is sender for each in self._routes.values())
        is_free = len(hashed) == HASH_BYTES and hashed not in self._routes
        return is_free and len(self._routes) < MAX_ROUTES and own < MAX_ROUTES_OF_PROCESS

    def _add(self, relay: SessionRelay, sender: Sender, hashed: bytes) -> None:
        for known, earlier in list(self._routes.items()):
            if earlier.relay is relay:  # another worker was asked before
                self._remove(known)
        timer = self._loop.call_later(self._seconds, self._remove, hashed)
        self._routes[hashed] = _Route(relay, sender, timer)
        relay.at_end.append(lambda: self._remove(hashed))

    def _remove(self, hashed: bytes) -> _Route | None:
        route = self._routes.pop(hashed, None)
        if route is not None:
            route.timer.cancel()
        return route

    def on_redeem(self, sender: Sender, correlation: bytes, message: RedeemRoute) -> None:
        """Give a worker the session that its token stands for. A token counts once, also if it is refused."""
        error: P2PError = Forbidden(role="a program of this machine", request="RedeemRoute")
        if sender.is_remote:
            error = TokenRefused(identity=message.identity, protocol=message.protocol, instance=message.instance)
            route = self._remove(token_hash(message.token))
            leg = None if route is None else route.relay.server
            offered = leg.offered if isinstance(leg, LocalLeg) else None
            named = message.identity, message.protocol, message.instance
            if route is not None and offered is not None:
                delivered = offered.message
                if named == (delivered.identity, delivered.protocol, delivered.instance):
                    self._access.on_session(sender)
                    self._listener.on_token(sender)
                    route.relay.at_end.append(lambda: self._loop.call_later(END_SECONDS, self._end, sender))
                    self._sessions.hand_over(route.relay, offered, sender)
                    self.taken += 1
                    self._mailbox.send(sender, correlation, encode(Ack()))
                    return
        self.refused += 1
        self._mailbox.send(sender, correlation, encode(ErrorReply.of(error)))

    def _end(self, sender: Sender) -> None:
        if not sender.gone:
            self._mailbox.end(sender)
