from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption, JsonOption
from ...console.parameters import Option


def run(
    json: JsonOption = False,
    watch: Annotated[
        bool,
        Option(
            "--watch",
            help="Update every second until Ctrl-C or q. Arrow keys, PgUp, PgDn, Home and End scroll.",
        ),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Show the status of the daemon.

    Shows processes, identities, protocols, peers, connections and warnings. If the gateway does not answer, shows only
    the processes and ends with exit code 3.
    """
    from ..status.collect import show, show_forever

    if watch:
        show_forever(home, json=json)
    else:
        raise SystemExit(show(home, json=json))
