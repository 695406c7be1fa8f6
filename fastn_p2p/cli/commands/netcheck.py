from __future__ import annotations

from typing import Annotated

from ...console.exit_codes import ExitCode
from ...console.options import HomeOption
from ...console.output import put_json, write_message, write_result
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

    from ..netcheck.check import PROBLEM
    from ..netcheck.run import run_checks

    checks = asyncio.run(run_checks(home))
    if json:
        put_json(*checks)
    else:
        for check in checks:
            target = f" {check.target}" if check.target else ""
            took = "" if check.ms is None else f" ({check.ms:.1f} ms)"
            write_result(f"{check.state:<8} {check.name}{target}: {check.text}{took}")
            if check.advice:
                write_result(f"{'':<8} → {check.advice}")
    wrong = sum(check.state == PROBLEM for check in checks)
    if wrong and not json:
        write_message(f"{wrong} of {len(checks)} checks found something wrong.")
    raise SystemExit(ExitCode.APPLICATION if wrong else ExitCode.OK)
