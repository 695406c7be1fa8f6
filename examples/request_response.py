"""A program that serves, and one that calls it.

    python examples/request_response.py server alice
    python examples/request_response.py client PEER hello

``alice`` is an identity of this machine's daemon that is online. ``PEER`` is her ID52 (``fastn-p2p identity list``
prints it), a ticket, or a name from the address book. The client calls as the only identity that is online; where there
are several, ``--as NAME`` says which.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from fastn_p2p_client import ApplicationError, P2PError, listen, sync
from fastn_p2p_client.protocol import Peer

PROTOCOL = "RequestResponse"


class Request(msgspec.Struct):
    message: str


class Response(msgspec.Struct):
    echoed: str
    to: str
    """Who has asked: a name from the server's address book, or an ID52."""


class Empty(msgspec.Struct):
    """The data of the error that an empty message ends with."""

    length: int


def serve(identity: str) -> None:
    """Answer until Ctrl-C or SIGTERM; what is in flight is finished first."""
    server = listen(identity)

    @server.handle_requests(PROTOCOL, access="everyone")
    async def echo(request: Request, peer: Peer) -> Response:
        print(f"{peer}: {request.message}", flush=True)
        if not request.message:
            raise ApplicationError("Empty", "say something", Empty(length=0))
        return Response(f"You said: {request.message}", str(peer))

    print(f"serving {PROTOCOL} as {identity}; Ctrl-C ends it", flush=True)
    server.run()


def call(identity: str | None, peer: str, message: str) -> None:
    response = sync.call(identity, peer, PROTOCOL, request=Request(message), returns=Response)
    print(response.echoed)


def main() -> int:
    parser = argparse.ArgumentParser(description="A call, and the program that answers it.")
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="answer calls")
    server.add_argument("identity", help="an identity of this machine")
    client = roles.add_parser("client", help="make a call")
    client.add_argument("peer", help="an ID52, a ticket, or a name from the address book")
    client.add_argument("message", nargs="?", default="hello")
    client.add_argument("--as", dest="identity", help="the identity that calls")
    arguments = parser.parse_args()
    try:
        if arguments.role == "server":
            serve(arguments.identity)
        else:
            call(arguments.identity, arguments.peer, arguments.message)
    except ApplicationError as error:  # the handler said no
        print(f"refused: {error} ({error.payload_as(Empty).length} characters)", file=sys.stderr)
        return 1
    except P2PError as error:  # everything else; the message says what to do
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
