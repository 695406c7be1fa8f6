from __future__ import annotations

from typing import TYPE_CHECKING

from ...console.options import HomeOption, JsonOption
from ...console.output import put_json, table, write_message

if TYPE_CHECKING:
    from fastn_p2p_client.ipc.messages import IdentityInfo


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """List the identities of this daemon.

    Prints name, ID52, and whether its owner has brought it online. Piped output has tabs between fields.
    """
    from ...console.control_request import with_daemon

    identities = with_daemon(home, lambda client: client.identities.list())
    if json:
        put_json(identities)
        return
    table(
        ("NAME", "ID52", "ONLINE"),
        [(each.name, each.id52, _state(each)) for each in identities],
    )
    if not identities:
        write_message("No identities. Create one: fastn-p2p create-identity NAME")


def _state(identity: IdentityInfo) -> str:
    if identity.revoked:
        return f"revoked {identity.revoked[:10]}"
    state = f"replica of {identity.owner}, " if identity.owner else ""
    state += "online" if identity.online else "offline"
    if identity.idle:
        from fastn_p2p_actors.daemon_settings.idle_time import format_idle_time

        state = f"{state}, sleeps after {format_idle_time(identity.idle)}"
    return state if identity.listed else f"{state}, unlisted"
