"""Table of the requests that each role may send to the vault. All others are refused.

A sender's role is that of the CURVE key with which it connected. It inherited the key from the supervisor.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import Forbidden
from fastn_p2p_client.ipc.messages import Cancel

from .messages import CreateKey, DeleteKey, GetTransport, ListKeys, RecordEvent, SignDelegation, SignPacket, SignRecord

GATEWAY: Final = "gateway"
NETWORK: Final = "network"
ROLES: Final = (GATEWAY, NETWORK)


class VaultState(enum.Enum):
    """State of the vault."""

    OPEN = "open"
    """Keys can be used."""


Rights: TypeAlias = dict[VaultState, frozenset[str]]

_no_role: Final[frozenset[str]] = frozenset()
_gateway: Final = frozenset({GATEWAY})
_network: Final = frozenset({NETWORK})

TABLE: Final[dict[type[msgspec.Struct], Rights]] = {
    CreateKey: {VaultState.OPEN: _gateway},
    DeleteKey: {VaultState.OPEN: _gateway},
    ListKeys: {VaultState.OPEN: _gateway},
    GetTransport: {VaultState.OPEN: _network},
    SignDelegation: {VaultState.OPEN: _network},
    SignRecord: {VaultState.OPEN: _network},
    SignPacket: {VaultState.OPEN: _network},
    RecordEvent: {VaultState.OPEN: _gateway | _network},
    Cancel: {VaultState.OPEN: _gateway | _network},
}
"""Roles that may send a request, by request and state."""


def check_allowed(role: str, state: VaultState, request: msgspec.Struct) -> None:
    """Raise Forbidden unless the table allows ``role`` this request in this state."""
    if role not in TABLE.get(type(request), {}).get(state, _no_role):
        raise Forbidden(role=role or "a sender without a role", request=type(request).__name__)
