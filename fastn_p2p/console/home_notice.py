"""Message that what a command shows is not where new things arrive: another daemon is the home of the protocol."""

from __future__ import annotations

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import ListReplicas

from .output import write_message


async def note_home(client: Client, identity: str | None, protocol: str, instance: str) -> None:
    """Write where the home of a local identity's protocol is, if it is another daemon. Raise no error of the daemon."""
    try:
        name, _ = await client.resolve_identity(identity)
        home = (await client.control(ListReplicas(name))).standby.get(f"{name}/{protocol}/{instance}", "")
    except P2PError:
        return
    if home:
        write_message(
            f"The home of {name}'s {protocol} ({instance}) is {home}: what arrives goes there. "
            "This daemon has only what came here before."
        )
