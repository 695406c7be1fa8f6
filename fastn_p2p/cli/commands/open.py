from __future__ import annotations

from typing import Annotated

from ...console.options import AsOption, HomeOption, JsonOption, PeerArgument
from ...console.parameters import Argument, Option


def run(
    peer: PeerArgument,
    name: Annotated[str, Argument(metavar="[NAME]", help="Name under which the peer exposes the service.")] = "web",
    port: Annotated[
        int | None,
        Option(
            "--port",
            metavar="PORT",
            help="Port of 127.0.0.1 to listen on; 0 chooses a free one. By default one that belongs to peer and name.",
            min=0,
            max=65535,
        ),
    ] = None,
    browser: Annotated[bool, Option("--browser", help="Open it in a browser.")] = False,
    every_user: Annotated[
        bool,
        Option("--every-user", help="Let other users of this machine use it in your identity's name."),
    ] = False,
    identity: AsOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Open a web service that a peer exposes.

    Prints an address of this machine, which stays the same for a peer and a name, and serves it until Ctrl-C or
    SIGTERM. Only you can use it. Continues when a daemon or the service restarts; a page says what is missing.
    """
    from ...protocols.web.loopback_server import open_service

    raise SystemExit(
        open_service(home, identity, peer, name, port=port, browser=browser, every_user=every_user, json=json)
    )
