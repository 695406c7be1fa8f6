"""Clients of the other actors: each request has a deadline and an expected type of reply.

An actor that is down, ends meanwhile or does not reply in time raises ``DaemonBusy``: the supervisor restarts it, and
every control command can be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_client.errors import ConnectionLost, DaemonBusy, DeadlineExceeded, IdentityFailed, Overloaded
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    Ack,
    BlockedList,
    ErrorReply,
    GroupList,
    IdentityLimits,
    InvitationList,
    InvitationText,
    PeerList,
    PeerReply,
    PeerTraceReply,
    PendingPeerList,
    PingReply,
    ReplicaList,
    SettingsReply,
    TicketText,
    WaitingItem,
    encode,
)
from fastn_p2p_client.ipc.request_channel import RequestChannel, check_reply, decode_answer

from ..identity.messages import IdentityActorReply
from ..identity.resource_limits import memory_limit, process_limit
from ..network.admin_messages import (
    WAITING,
    AccessEvaluation,
    AuthenticateGateway,
    NetworkFiguresReply,
    NetworkReportReply,
    SleeperNames,
    WaitingList,
    WorkerListenerReply,
)
from ..runtime import control_channel
from ..runtime.actor import ActorContext
from ..runtime.curve.curve_connection import vault_channel
from ..runtime.grants import GATEWAY_SUBJECT, make_grant
from ..runtime.process_setup import MAX_FILES
from ..runtime.specs import GatewaySettings
from ..vault.messages import VaultReply

REQUEST_SECONDS: Final = 5.0
"""Seconds for one request."""
START_SECONDS: Final = 40.0
"""Seconds that an identity may take to start, with failed attempts. A binding that hangs twice, and then is left out,
takes 30."""
STOP_SECONDS: Final = 10.0
"""Seconds that an identity may take to stop."""
RESTART_SECONDS: Final = 30.0
"""Seconds that the network process may take to drain, end and start."""
_AUTHENTICATION: Final = b"manage"
"""Correlation id of the gateway's authentication at the network process."""

_vault_reply: Final = msgspec.msgpack.Decoder(VaultReply)
_network_reply: Final = msgspec.msgpack.Decoder(
    Ack
    | ErrorReply
    | TicketText
    | SettingsReply
    | PeerReply
    | PeerList
    | PingReply
    | PeerTraceReply
    | PendingPeerList
    | GroupList
    | BlockedList
    | AccessEvaluation
    | InvitationText
    | InvitationList
    | NetworkReportReply
    | NetworkFiguresReply
    | SleeperNames
    | ReplicaList
    | WorkerListenerReply
)
_waiting: Final = msgspec.msgpack.Decoder(WaitingList)
_identity_reply: Final = msgspec.msgpack.Decoder(IdentityActorReply)

T = TypeVar("T")

log = logging.getLogger(__name__)


class ActorClient:
    """Client of one actor, over a request channel that stays open."""

    def __init__(self, channel: RequestChannel, actor: str, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._channel = channel
        self._actor = actor
        self._decoder = decoder
        channel.open()

    def close(self) -> None:
        self._channel.close()

    async def request(
        self, message: msgspec.Struct, expected: type[T], payload: bytes = b"", *, timeout: float = REQUEST_SECONDS
    ) -> T:
        """Send a request and return its reply, which must be an ``expected``.

        Raises:
            DaemonBusy: no reply in time.
            P2PError: the error that the actor replied with.
        """
        return check_reply(await self.query(message, payload, timeout=timeout), expected, f"the {self._actor}")

    async def query(self, message: msgspec.Struct, payload: bytes = b"", *, timeout: float = REQUEST_SECONDS) -> Any:
        """Send a request and return its reply, of any type. Raises as ``request``."""
        try:
            answer = await self._channel.request(message, payload, timeout=timeout)
        except (ConnectionLost, DeadlineExceeded, Overloaded) as error:
            raise DaemonBusy(actor=self._actor) from error
        reply = decode_answer(self._decoder, answer.header)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        return reply


def vault(home: Home, settings: GatewaySettings) -> ActorClient:
    """Return a client of the vault, which authenticates with the gateway's own key."""
    return ActorClient(vault_channel(home.mailbox("vault"), settings.vault), "vault", _vault_reply)


def network(
    home: Home,
    settings: GatewaySettings,
    on_waiting: Callable[[tuple[WaitingItem, ...]], object],
    on_connected: Callable[[], object],
) -> ActorClient:
    """Return a client of the network process. It sends the gateway's grant first, at each connection.

    Args:
        on_waiting: called with what waits for the owner, at each connection and after changes.
        on_connected: called at each connection.
    """
    manage = encode(AuthenticateGateway(make_grant(settings.grant_key, GATEWAY_SUBJECT)))

    def on_connect() -> None:
        # At once: requests that wait for the connection are sent after this.
        channel.send(_AUTHENTICATION, manage)
        on_connected()

    def on_message(correlation: bytes, header: bytes, _: bytes) -> None:
        if correlation == WAITING:
            on_waiting(_waiting.decode(header).items)
        elif correlation == _AUTHENTICATION:
            reply = decode_answer(_network_reply, header)
            if isinstance(reply, ErrorReply):
                log.error("the network process rejected the gateway: %s", reply.error())

    channel = RequestChannel(home.mailbox("network"), "network", on_connect=on_connect, on_message=on_message)
    return ActorClient(channel, "network", _network_reply)


class IdentityClient(ActorClient):
    """Client of one identity's process; an async context manager.

    Attributes:
        grant: sent with every request that changes something.
    """

    def __init__(self, home: Home, identity: str, grant: bytes) -> None:
        self.grant = grant
        actor = f"identity-{identity}"
        super().__init__(RequestChannel(home.mailbox(actor), actor), actor, _identity_reply)

    async def __aenter__(self) -> IdentityClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


class SupervisorClient:
    """Client of the supervisor, over the control channel."""

    def __init__(self, actor: ActorContext) -> None:
        self._actor = actor

    async def start(self, identity: str) -> None:
        """Start the identity's process, and wait until it serves.

        Raises:
            IdentityFailed: it does not serve in time, or keeps ending.
        """
        try:
            await self._actor.request_from_supervisor(control_channel.StartIdentity(identity), START_SECONDS)
        except DeadlineExceeded as error:
            reason = f"it was not ready within {START_SECONDS:g} s"
            raise IdentityFailed(identity=identity, reason=reason) from error

    async def stop(self, identity: str) -> None:
        """Stop the identity's process, and wait until it is gone. Raises DaemonBusy."""
        await self._request(control_channel.StopIdentity(identity), STOP_SECONDS)

    async def restart_network(self) -> None:
        """Restart the network process, and wait until the next one is ready. Raises DaemonBusy."""
        await self._request(control_channel.RestartNetwork(), RESTART_SECONDS)

    async def ensure_online(self, identities: tuple[str, ...]) -> None:
        """Have identities started that do not run. Raises DaemonBusy."""
        await self._request(control_channel.EnsureOnline(identities), REQUEST_SECONDS)

    async def keep_asleep(self, identities: tuple[str, ...]) -> None:
        """Let the network process wake identities that have no process. Raises DaemonBusy."""
        await self._request(control_channel.KeepAsleep(identities), REQUEST_SECONDS)

    async def limit(self, identity: str, limits: IdentityLimits, default_memory: int) -> None:
        """Set the limits of the identity's process. Raises DaemonBusy."""
        request = control_channel.LimitIdentity(
            identity,
            memory_limit(limits, default_memory),
            process_limit(limits),
            limits.file_size or 0,
            limits.open_files or MAX_FILES,
        )
        await self._request(request, REQUEST_SECONDS)

    async def change_log_level(self, level: str) -> None:
        """Log lines of this level and above in all processes. Raises DaemonBusy."""
        await self._request(control_channel.ChangeLogLevel(level), REQUEST_SECONDS)

    async def processes(self, timeout: float = REQUEST_SECONDS) -> list[control_channel.ProcessInfo]:
        """Return every process of the daemon. Raises DaemonBusy."""
        reply = await self._request(control_channel.GetProcesses(), timeout)
        return reply.processes if isinstance(reply, control_channel.ProcessList) else []

    async def is_serving(self, identity: str, *, wake: bool = False) -> bool:
        """Return whether the identity's process serves. Wait for one that is starting.

        Args:
            identity: name of the identity.
            wake: start the process if it has none or falls asleep. Only for an identity that is to be online.
        """
        name = f"identity-{identity}"
        found = (process.state for process in await self.processes() if process.name == name)
        state = next(found, "asleep" if wake else "failed")
        if state in ("failed", "stopping"):
            return False
        if state != "ready" or wake:
            try:
                await self.start(identity)
            except IdentityFailed:
                return False
        return True

    async def _request(self, request: control_channel.Request, timeout: float) -> control_channel.Result:
        try:
            return await self._actor.request_from_supervisor(request, timeout)
        except DeadlineExceeded as error:
            raise DaemonBusy(actor="supervisor") from error
