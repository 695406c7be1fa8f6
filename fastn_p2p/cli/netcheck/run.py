"""Run of all checks, from the settings and, if a daemon runs, its status."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import DaemonNotRunning, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import GetStatus, Status

from ...console.daemon_settings import resolve
from .check import OK, PROBLEM, UNKNOWN, Check
from .directories import check_directories
from .lan import check_lan
from .relays import check_clock, check_dns, check_relays
from .time_limit import LIMIT
from .udp import check_addresses, check_port, check_udp

_STATUS_TIMEOUT: Final = 5.0
"""Seconds for the daemon's status. The checks have what is left of ``LIMIT``."""


async def run_checks(home: Path | None) -> list[Check]:
    """Run every check, and return the results in the order in which they are shown, within ten seconds.

    Raises:
        CommandLineError: the settings of the daemon are not valid.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + LIMIT
    found = Home.find(home)
    status, daemon = await _daemon(found)
    network = resolve(found).settings.network
    mode = status.network_mode if status is not None else str(network.mode)
    relays = status.relays if status is not None else list(network.used_relays)
    directories = status.directories if status is not None else list(network.used_directories)
    uses_lan = status.lan if status is not None else network.uses_lan
    present = [each for each in status.identities if each.online] if status is not None else []
    online = [(each.name, each.id52) for each in present if each.listed]
    left = ends - loop.time()
    udp, lan, relayed, listed = await asyncio.gather(
        check_udp(relays, status, left),
        check_lan(uses_lan=uses_lan, mode=mode),
        check_relays(relays, mode, left),
        check_directories(directories, online, mode, left),
    )
    answers = [*relayed[1], *listed[1]]
    home_relay = [_home_relay(status)] if status is not None and relays else []
    return [
        daemon,
        *check_dns(answers),
        udp,
        *check_addresses(status, mode, {each.seen_as for each in relayed[1] if each.seen_as}),
        check_port(_port(found), status),
        *relayed[0],
        *home_relay,
        *listed[0],
        *lan,
        check_clock(answers),
    ]


async def _daemon(home: Home) -> tuple[Status | None, Check]:
    """Return the status of the daemon, if one runs."""
    try:
        async with Client(home, program="fastn-p2p netcheck") as client:
            status = (await client.control(GetStatus(), timeout=_STATUS_TIMEOUT)).status
    except DaemonNotRunning:
        text = "none is running, so less can be checked"
        return None, Check(name="daemon", state=UNKNOWN, text=text, advice="start it: fastn-p2p daemon")
    except P2PError as error:
        return None, Check(name="daemon", state=PROBLEM, text=str(error), advice="see: fastn-p2p status")
    online = sum(each.online for each in status.identities)
    words = f"runs, network mode {status.network_mode}, {online} identit{'y' if online == 1 else 'ies'} online"
    advice = "" if online else "peers find nothing to call: fastn-p2p identity-online NAME"
    return status, Check(name="daemon", state=OK, text=words, advice=advice)


def _home_relay(status: Status) -> Check:
    if status.home_relay:
        return Check(name="home relay", state=OK, text=f"peers reach the daemon through {status.home_relay}")
    text = "the daemon is connected to no relay, so peers behind a NAT may not reach it"
    return Check(name="home relay", state=PROBLEM, text=text, advice="see the checks of the relays, and run this again")


def _port(home: Home) -> int:
    """Return the UDP port of the daemon; 0 if it has none."""
    try:
        return int((home.path / "run" / "network.port").read_text())
    except (OSError, ValueError):
        return 0
