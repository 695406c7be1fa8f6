from __future__ import annotations

from ...console.options import HomeOption, NameArgument
from ...console.output import write_message, write_result


def run(name: NameArgument, home: HomeOption = None) -> None:
    """Create an identity and print its ID52."""
    from fastn_p2p_client.ipc.messages import CreateIdentity

    from ...console.control_request import request_daemon

    identity = request_daemon(home, CreateIdentity(name)).identity
    write_message(f"Created {identity.name}. Its ID52, by which peers call it:")
    write_result(identity.id52)
