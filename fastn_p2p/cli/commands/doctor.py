from __future__ import annotations

from typing import Annotated

from ...console.options import HomeOption
from ...console.parameters import Option


def run(
    local: Annotated[bool, Option("--local", help="Leave out the network, which `netcheck` checks.")] = False,
    json: Annotated[bool, Option("--json", help="Print JSON, one check on each line.")] = False,
    home: HomeOption = None,
) -> None:
    """Examine this machine and the daemon: home, limits, kernel, clock, disk, versions, vault and network.

    Each line is `ok`, `warning` or `problem`, and says what to do. It is `unknown` if something could not be checked,
    and `off` if the settings turn it off. Also works without a running daemon. Changes nothing. The exit code is 1 if
    there is a problem.
    """
    from ..doctor.examination import examine
    from ..netcheck.check import show_checks

    raise SystemExit(show_checks(examine(home, network=not local), json=json))
