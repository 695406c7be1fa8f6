"""Who may ask the vault for what: a table, and whatever is not in it is refused.

A caller's role is the CURVE key with which it came in, which it inherited from the supervisor at its start.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from fastn_p2p_client.errors import Forbidden
from fastn_p2p_client.ipc.messages import Cancel

from .messages import CreateIdentity, DeleteIdentity, GetTransport, ListIdentities, SignDelegation, SignRecord

__all__ = ["GATEWAY", "NETWORK", "ROLES", "TABLE", "State", "check_allowed"]

GATEWAY: Final = "gateway"
NETWORK: Final = "network"
ROLES: Final = (GATEWAY, NETWORK)


class State(enum.Enum):
    """What the vault can do at the moment."""

    OPEN = "open"
    """Its keys can be used."""


Rights: TypeAlias = dict[State, frozenset[str]]

_nobody: Final[frozenset[str]] = frozenset()
_gateway: Final = frozenset({GATEWAY})
_network: Final = frozenset({NETWORK})

TABLE: Final[dict[type[msgspec.Struct], Rights]] = {
    CreateIdentity: {State.OPEN: _gateway},
    DeleteIdentity: {State.OPEN: _gateway},
    ListIdentities: {State.OPEN: _gateway},
    GetTransport: {State.OPEN: _network},
    SignDelegation: {State.OPEN: _network},
    SignRecord: {State.OPEN: _network},
    Cancel: {State.OPEN: _gateway | _network},
}
"""Request → state → the roles that may make it then."""


def check_allowed(role: str, state: State, request: msgspec.Struct) -> None:
    """Raises Forbidden unless the table lets ``role`` make this request in this state."""
    if role not in TABLE.get(type(request), {}).get(state, _nobody):
        raise Forbidden(role=role or "whoever has no role", request=type(request).__name__)
