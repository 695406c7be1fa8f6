"""What a child may ask the supervisor for: a table in which everything is denied that is not listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_client.errors import Forbidden

__all__ = ["ALLOWED_REQUESTS", "authorise"]

ALLOWED_REQUESTS: Final[Mapping[str, frozenset[type[Any]]]] = {
    "gateway": frozenset({wire.StartIdentity, wire.StopIdentity, wire.EnsureOnline, wire.GetProcesses}),
}
"""Child's name → the requests that it may make. The supervisor knows a child by its leash, not by what it says."""


def authorise(child: str, request: wire.Request) -> None:
    """Raises Forbidden unless the table lists this request for this child."""
    if type(request) not in ALLOWED_REQUESTS.get(child, frozenset()):
        raise Forbidden(role=child, request=type(request).__name__)
