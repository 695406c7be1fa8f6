"""What the gateway says to the network, beside what every program may say (``fastn_p2p_client.messages.Data``).

``Manage`` comes first on each connection; the rest is refused before it.
"""

from __future__ import annotations

from typing import TypeAlias

from fastn_p2p_client.messages import ConnectionStatus, Data, IdentityStatus, Message, PeerInfo

__all__ = [
    "DropPeer",
    "GetPeers",
    "Inspect",
    "MakeTicket",
    "Manage",
    "NetworkReport",
    "NetworkReportReply",
    "NetworkRequest",
    "PutPeer",
]

import msgspec


class Manage(Message, frozen=True, tag=100):
    """Shows the gateway's grant; answered by ``Done`` or ``forbidden``."""

    grant: bytes


class MakeTicket(Message, frozen=True, tag=101):
    """A fresh ticket of an identity that is online; empty stands for the only one. Answered by ``TicketText``."""

    identity: str


class PutPeer(Message, frozen=True, tag=102):
    """Verify a ticket (or take an ID52) and keep it in the address book. Answered by ``PeerReply``."""

    peer: str
    name: str


class DropPeer(Message, frozen=True, tag=103):
    """Answered by ``Done``."""

    name: str


class GetPeers(Message, frozen=True, tag=104):
    """Answered by ``PeerList``."""


class Inspect(Message, frozen=True, tag=105):
    """Answered by ``NetworkReportReply``."""


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the network process knows, for ``status``. Identities carry ``wanted=True``."""

    endpoint: str
    addresses: list[str]
    clients: int
    identities: list[IdentityStatus]
    peers: list[PeerInfo]
    connections: list[ConnectionStatus]
    warnings: list[str]


class NetworkReportReply(Message, frozen=True, tag=150):
    report: NetworkReport


NetworkRequest: TypeAlias = Data | Manage | MakeTicket | PutPeer | DropPeer | GetPeers | Inspect
"""Everything that may arrive at the network's mailbox."""
