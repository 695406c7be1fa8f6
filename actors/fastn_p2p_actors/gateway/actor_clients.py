"""The other actors, as the gateway sees them: asked with a deadline, answered with the type that was expected.

A colleague that is down, dies meanwhile or does not answer in time is ``DaemonBusy``: the supervisor is restarting it,
and every command of the control plane can be repeated.
"""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

import msgspec

from fastn_p2p_client.errors import (
    ConnectionLost,
    DaemonBusy,
    DeadlineExceeded,
    IdentityFailed,
    InternalError,
    Overloaded,
)
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    Ack,
    ErrorReply,
    PeerList,
    PeerReply,
    TicketText,
    encode,
)
from fastn_p2p_client.ipc.request_channel import (
    RequestChannel,
    decode_answer,
)

from ..identity.messages import IdentityAnswer
from ..network.admin_messages import (
    AuthenticateGateway,
    NetworkReportReply,
)
from ..runtime import control_channel
from ..runtime.actor import ActorContext
from ..runtime.grants import GATEWAY_SUBJECT, make_grant
from ..runtime.specs import GatewaySettings
from ..vault.messages import VaultReply

__all__ = ["START_SECONDS", "ActorClient", "IdentityClient", "SupervisorClient", "network", "vault"]

ASK_SECONDS: Final = 5.0
START_SECONDS: Final = 40.0
"""How long an identity may take to come up, first failures included: a binding that hangs twice, and then is left out,
takes 30."""
STOP_SECONDS: Final = 10.0
_INTRODUCTION: Final = b"manage"
"""The id of the one message that is not an ask."""

_vault_reply: Final = msgspec.msgpack.Decoder(VaultReply)
_network_reply: Final = msgspec.msgpack.Decoder(
    Ack | ErrorReply | TicketText | PeerReply | PeerList | NetworkReportReply
)
_identity_answer: Final = msgspec.msgpack.Decoder(IdentityAnswer)

T = TypeVar("T")

log = logging.getLogger(__name__)


class ActorClient:
    """One actor behind a link that stays open."""

    def __init__(self, link: RequestChannel, actor: str, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._link = link
        self._actor = actor
        self._decoder = decoder
        link.open()

    def close(self) -> None:
        self._link.close()

    async def request(
        self, message: msgspec.Struct, expected: type[T], payload: bytes = b"", *, timeout: float = ASK_SECONDS
    ) -> T:
        """
        Raises:
            DaemonBusy: no answer in time.
            P2PError: what it answered instead.
        """
        try:
            answer = await self._link.request(message, payload, timeout=timeout)
        except (ConnectionLost, DeadlineExceeded, Overloaded) as error:
            raise DaemonBusy(actor=self._actor) from error
        reply = decode_answer(self._decoder, answer.header)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        if not isinstance(reply, expected):
            raise InternalError(
                reason=f"the {self._actor} answered {type(message).__name__} with {type(reply).__name__}"
            )
        return reply


def vault(home: Home, settings: GatewaySettings) -> ActorClient:
    """The vault, reached with the gateway's own key."""
    return ActorClient(RequestChannel(home.mailbox("vault"), "vault", curve=settings.vault), "vault", _vault_reply)


def network(home: Home, settings: GatewaySettings) -> ActorClient:
    """The network, to which the gateway shows its grant at each connection before it says anything else."""
    manage = encode(AuthenticateGateway(make_grant(settings.grant_key, GATEWAY_SUBJECT)))

    def on_up() -> None:
        # At once: whoever waits for the link has its turn after this.
        link.send(_INTRODUCTION, manage)

    link = RequestChannel(home.mailbox("network"), "network", on_up=on_up, on_message=_note_introduction)
    return ActorClient(link, "network", _network_reply)


def _note_introduction(correlation: bytes, header: bytes, _: bytes) -> None:
    if correlation == _INTRODUCTION:
        reply = decode_answer(_network_reply, header)
        if isinstance(reply, ErrorReply):
            log.error("the network does not accept the gateway: %s", reply.error())


class IdentityClient(ActorClient):
    """One identity's process, for as long as it takes to ask it; an async context manager.

    Attributes:
        grant: to be shown with every request for a change.
    """

    def __init__(self, home: Home, identity: str, grant: bytes) -> None:
        self.grant = grant
        actor = f"identity-{identity}"
        super().__init__(RequestChannel(home.mailbox(actor), actor), actor, _identity_answer)

    async def __aenter__(self) -> IdentityClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()


class SupervisorClient:
    """The supervisor, over the leash."""

    def __init__(self, stage: ActorContext) -> None:
        self._stage = stage

    async def start(self, identity: str) -> None:
        """Returns once the identity's process serves.

        Raises:
            IdentityFailed: it does not.
        """
        try:
            await self._stage.ask_supervisor(control_channel.StartIdentity(identity), START_SECONDS)
        except DeadlineExceeded as error:
            reason = f"it was not ready within {START_SECONDS:g} s"
            raise IdentityFailed(identity=identity, reason=reason) from error

    async def stop(self, identity: str) -> None:
        """Returns once the identity's process is gone. Raises DaemonBusy."""
        await self._ask(control_channel.StopIdentity(identity), STOP_SECONDS)

    async def ensure_online(self, identities: tuple[str, ...]) -> None:
        """Has those started that are not running. Raises DaemonBusy."""
        await self._ask(control_channel.EnsureOnline(identities), ASK_SECONDS)

    async def tree(self, timeout: float = ASK_SECONDS) -> list[control_channel.ProcessInfo]:
        """Every process. Raises DaemonBusy."""
        reply = await self._ask(control_channel.GetProcesses(), timeout)
        return reply.processes if isinstance(reply, control_channel.ProcessList) else []

    async def is_up(self, identity: str) -> bool:
        """Whether the identity's process serves, waiting for one that is starting; False for one that has failed."""
        name = f"identity-{identity}"
        state = next((process.state for process in await self.tree() if process.name == name), "failed")
        if state in ("failed", "stopping"):
            return False
        if state != "ready":
            try:
                await self.start(identity)
            except IdentityFailed:
                return False
        return True

    async def _ask(
        self, request: control_channel.Request, timeout: float
    ) -> control_channel.Ack | control_channel.ProcessList:
        try:
            return await self._stage.ask_supervisor(request, timeout)
        except DeadlineExceeded as error:
            raise DaemonBusy(actor="supervisor") from error
