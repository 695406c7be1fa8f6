"""A program that serves a protocol, and a program that calls it.

    python examples/request_response.py server alice
    python examples/request_response.py client PEER hello

``alice`` is an online identity of the daemon on this machine. ``PEER`` is her ID52 (``fastn-p2p identity list`` prints
it), a ticket, or a petname. The client calls as the only online identity. If several are online, use ``--as NAME``.
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
    """Caller: a petname from the server's address book, or an ID52."""


class Empty(msgspec.Struct):
    """Data of the application error ``Empty``."""

    length: int


def serve(identity: str) -> None:
    """Answer calls until Ctrl-C or SIGTERM, then finish the calls in flight."""
    server = listen(identity)

    @server.handle_requests(PROTOCOL, access="everyone")
    async def echo(request: Request, peer: Peer) -> Response:
        print(f"{peer}: {request.message}", flush=True)
        if not request.message:
            raise ApplicationError("Empty", "the message is empty", Empty(length=0))
        return Response(f"You said: {request.message}", str(peer))

    print(f"serving {PROTOCOL} as {identity}. Ctrl-C ends it", flush=True)
    server.run()


def call(identity: str | None, peer: str, message: str) -> None:
    """Make one call and print the reply."""
    response = sync.call(identity, peer, PROTOCOL, request=Request(message), returns=Response)
    print(response.echoed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve a protocol, or call it.")
    roles = parser.add_subparsers(dest="role", required=True)
    server = roles.add_parser("server", help="answer calls")
    server.add_argument("identity", help="an identity of this machine")
    client = roles.add_parser("client", help="make a call")
    client.add_argument("peer", help="an ID52, a ticket, or a petname")
    client.add_argument("message", nargs="?", default="hello")
    client.add_argument("--as", dest="identity", help="the identity that calls")
    arguments = parser.parse_args()
    try:
        if arguments.role == "server":
            serve(arguments.identity)
        else:
            call(arguments.identity, arguments.peer, arguments.message)
    except ApplicationError as error:  # raised by the handler
        print(f"application error: {error} ({error.payload_as(Empty).length} characters)", file=sys.stderr)
        return 1
    except P2PError as error:  # every other error; its message says what to do
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
