from __future__ import annotations

from ....console.options import ContactArgument, HomeOption, JsonOption
from ....console.output import put_json, write_message


def run(
    peer: ContactArgument,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove a peer from the address book and from its groups. Says which access lists still name it."""
    from fastn_p2p_client.keys import ID52_LENGTH

    from ....console.access_uses import groups_of, write_uses
    from ....console.control_request import with_daemon

    name = peer if len(peer) < ID52_LENGTH else with_daemon(home, lambda client: client.peers.get(peer)).name
    groups = groups_of(home, name)
    with_daemon(home, lambda client: client.peers.remove(name))
    write_message(f"Removed {name} from the address book.")
    if groups:
        write_message(f"It was in: {', '.join(groups)}. It is in no group now.")
    write_uses(home, name)
    if json:
        put_json({"name": name, "groups": groups})
