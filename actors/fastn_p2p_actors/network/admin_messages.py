"""What the gateway says to the network, beside what every program may say
(``fastn_p2p_client.ipc.messages.DataRequest``).

``AuthenticateGateway`` comes first on each connection; the rest is refused before it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from fastn_p2p_client.ipc.messages import (
    ConnectionStatus,
    DataRequest,
    IdentityStatus,
    Message,
    PeerInfo,
)

__all__ = [
    "MAX_PAGE",
    "AuthenticateGateway",
    "CreateTicket",
    "DeletePeer",
    "GetNetworkReport",
    "GetPeers",
    "NetworkReport",
    "NetworkReportReply",
    "NetworkRequest",
    "SavePeer",
]

import msgspec

MAX_PAGE: Final = 20_000
"""Peers or identities in one answer: about 4 MB."""


class AuthenticateGateway(Message, frozen=True, tag=100):
    """Shows the gateway's grant; answered by ``Ack`` or ``forbidden``."""

    grant: bytes


class CreateTicket(Message, frozen=True, tag=101):
    """A fresh ticket of an identity that is online; empty stands for the only one. Answered by ``TicketText``."""

    identity: str


class SavePeer(Message, frozen=True, tag=102):
    """Verify a ticket (or take an ID52) and keep it in the address book. Answered by ``PeerReply``."""

    peer: str
    name: str


class DeletePeer(Message, frozen=True, tag=103):
    """Answered by ``Ack``."""

    name: str


class GetPeers(Message, frozen=True, tag=104):
    """A page of the address book, as in ``ListPeers``. Answered by ``PeerList``."""

    after: str = ""
    limit: int = 0


class GetNetworkReport(Message, frozen=True, tag=105):
    """Answered by ``NetworkReportReply``."""

    limit: int = 0
    """Identities, peers and connections in the answer, of each at most so many; 0 stands for all."""
    identity: str = ""
    """If given, only this identity and what concerns the whole daemon."""


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the network process knows, for ``status``: as much as was asked for. Identities carry ``wanted=True``."""

    endpoint: str
    addresses: list[str]
    clients: int
    identities: list[IdentityStatus]
    peers: list[PeerInfo]
    connections: list[ConnectionStatus]
    warnings: list[str]
    identities_total: int = 0
    """Those that are online."""
    peers_total: int = 0
    connections_total: int = 0


class NetworkReportReply(Message, frozen=True, tag=150):
    report: NetworkReport


NetworkRequest: TypeAlias = (
    DataRequest | AuthenticateGateway | CreateTicket | SavePeer | DeletePeer | GetPeers | GetNetworkReport
)
"""Everything that may arrive at the network's mailbox."""
