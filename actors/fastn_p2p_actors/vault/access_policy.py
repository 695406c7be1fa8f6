"""Who may ask the vault for what: a table, and whatever is not in it is refused.

A caller's role is the CURVE key with which it came in, which it inherited from the supervisor at its start.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import Forbidden
from fastn_p2p_client.ipc.messages import Cancel

from .messages import CreateKey, DeleteKey, GetTransport, ListKeys, SignDelegation, SignRecord

__all__ = ["GATEWAY", "NETWORK", "ROLES", "TABLE", "VaultState", "check_allowed"]

GATEWAY: Final = "gateway"
NETWORK: Final = "network"
ROLES: Final = (GATEWAY, NETWORK)


class VaultState(enum.Enum):
    """What the vault can do at the moment."""

    OPEN = "open"
    """Its keys can be used."""


Rights: TypeAlias = dict[VaultState, frozenset[str]]

_nobody: Final[frozenset[str]] = frozenset()
_gateway: Final = frozenset({GATEWAY})
_network: Final = frozenset({NETWORK})

TABLE: Final[dict[type[msgspec.Struct], Rights]] = {
    CreateKey: {VaultState.OPEN: _gateway},
    DeleteKey: {VaultState.OPEN: _gateway},
    ListKeys: {VaultState.OPEN: _gateway},
    GetTransport: {VaultState.OPEN: _network},
    SignDelegation: {VaultState.OPEN: _network},
    SignRecord: {VaultState.OPEN: _network},
    Cancel: {VaultState.OPEN: _gateway | _network},
}
"""Request → state → the roles that may make it then."""


def check_allowed(role: str, state: VaultState, request: msgspec.Struct) -> None:
    """Raises Forbidden unless the table lets ``role`` make this request in this state."""
    if role not in TABLE.get(type(request), {}).get(state, _nobody):
        raise Forbidden(role=role or "whoever has no role", request=type(request).__name__)
