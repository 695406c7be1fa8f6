"""Uses of a peer or a group in groups and access lists, for the commands that remove it."""

from __future__ import annotations

from pathlib import Path

from fastn_p2p_client.errors import P2PError

from .control_request import with_daemon
from .output import write_message


def groups_of(home: Path | None, peer: str) -> list[str]:
    """Return the groups that a peer of the address book is in; none if the daemon does not say."""
    try:
        return [each.name for each in with_daemon(home, lambda client: client.groups.list()) if peer in each.members]
    except P2PError:
        return []


def write_uses(home: Path | None, entry: str) -> None:
    """Write which bindings still have the entry in their access lists, where it admits nobody now."""
    try:
        bindings = with_daemon(home, lambda client: client.protocols.access())
    except P2PError:
        return  # the change itself was carried out
    for each in bindings:
        if entry in each.allow:
            write_message(
                f"{each.identity}/{each.protocol}/{each.instance} still allows {entry}, which admits nobody now. "
                f"Change it: fastn-p2p protocol set {each.identity} --protocol {each.protocol} --instance "
                f"{each.instance} --allow WHO"
            )
