"""All checks of ``fastn-p2p doctor``."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastn_p2p_client.home import Home

from ...console.daemon_settings import resolve
from ...console.exit_codes import CommandLineError
from ..netcheck.check import OK, PROBLEM, UNKNOWN, Check
from ..netcheck.run import run_checks
from .daemon_state import check_daemon
from .home_directory import check_disk, check_home, check_sockets
from .kernel import check_kernel
from .machine_limits import check_limits
from .software import check_software


def examine(home: Path | None, *, network: bool) -> list[Check]:
    """Return the results of all checks in the order in which they are shown. Changes nothing.

    Args:
        network: also run the checks of ``netcheck``.

    Raises:
        HomeUnusable: the path of the home is unusable as such.
    """
    found = Home.find(home)
    settings, sandbox = _check_settings(found)
    checks = [
        *check_home(found),
        settings,
        *check_sockets(found),
        *check_disk(found),
        *check_limits(found),
        *check_kernel(sandbox=sandbox),
        *check_software(found),
        *check_daemon(found),
    ]
    if not network:
        return checks
    if settings.state != OK:
        return [*checks, Check(name="network", state=UNKNOWN, text="the settings are invalid, so it was not checked")]
    return [*checks, *(each for each in asyncio.run(run_checks(found.path)) if each.name != "daemon")]


def _check_settings(home: Home) -> tuple[Check, bool]:
    """Return a check of the settings, and whether they want sandboxes."""
    try:
        settings = resolve(home).settings
    except (CommandLineError, OSError) as error:
        return Check(name="settings", state=PROBLEM, text=str(error), advice="correct what it names"), True
    text = f"valid, network mode {settings.network.mode}"
    return Check(name="settings", state=OK, text=text), settings.limits.sandbox
