from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption
from ...console.parameters import Option


def run(
    json: Annotated[bool, Option("--json", help="Print JSON, one check on each line.")] = False,
    home: HomeOption = None,
) -> None:
    """Check the network: UDP, addresses, NAT, relays, directories, LAN and clock.

    Each line says what was found, and what to do if something is wrong. Sends requests only to the relays and
    directories of the settings. Also works without a running daemon, with fewer checks. The exit code is 1 if
    something is wrong.
    """
    import asyncio

    from ..netcheck.check import show_checks
    from ..netcheck.run import run_checks

    raise SystemExit(show_checks(asyncio.run(run_checks(home)), json=json))
