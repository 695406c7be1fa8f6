from __future__ import annotations

from ....console.options import HomeOption, JsonOption


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """Replace the transport key, for instance after a program may have read it.

    Identities keep their ID52s. Peers that see the new key refuse the old one. Connections end and are made again:
    calls in flight get a few seconds to finish, and those with retry=True are repeated. Sessions end.
    """
    from fastn_p2p_client.ipc.messages import RotateTransport

    from ....console.control_request import request_daemon
    from ....console.output import put_json, write_message

    reply = request_daemon(home, RotateTransport())
    if json:
        put_json({"endpoint": reply.endpoint, "epoch": reply.epoch, "since": reply.since})
        return
    write_message(f"The transport key has epoch {reply.epoch} now. Peers refuse the old one once they see the new one.")
