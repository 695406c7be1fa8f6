"""What a child may ask the supervisor for: a table in which everything is denied that is not listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastn_p2p_actors import leash as wire
from fastn_p2p_client.errors import Forbidden, InvalidName
from fastn_p2p_client.limits import MAX_NAME

__all__ = ["ALLOWED", "authorise", "check_identity_name"]

ALLOWED: Final[Mapping[str, frozenset[type[Any]]]] = {
    "gateway": frozenset({wire.StartIdentity, wire.StopIdentity, wire.EnsureOnline, wire.GetTree}),
}
"""Child's name → the requests that it may make. The supervisor knows a child by its leash, not by what it says."""


def authorise(child: str, request: wire.Request) -> None:
    """Raises:
    Forbidden: the table does not list this request for this child.
    """
    if type(request) not in ALLOWED.get(child, frozenset()):
        raise Forbidden(role=child, request=type(request).__name__)


def check_identity_name(name: str) -> None:
    """Raises:
    InvalidName: this cannot be part of a process's name and of a path.
    """
    reason = None
    if not name or len(name) > MAX_NAME:
        reason = f"it has {len(name)} characters, 1 to {MAX_NAME} are possible"
    elif name.startswith(".") or "/" in name or not name.isprintable():
        reason = "it could not be the name of a directory"
    if reason is not None:
        raise InvalidName(name=name[:MAX_NAME], what="an identity", reason=reason)
