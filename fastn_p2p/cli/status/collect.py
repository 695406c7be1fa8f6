"""``fastn-p2p status``: what the gateway tells, or else what the supervisor has written down."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from fastn_p2p_actors.runtime.process_setup import boot_ms
from fastn_p2p_client.errors import DaemonBusy, DaemonNotRunning, DeadlineExceeded, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    GetStatus,
    Status,
    StatusReply,
)

from ...console.control_request import ask
from ...console.exit_codes import Exit
from ...console.output import (
    is_terminal,
    put_json,
    put_raw,
    say,
)
from ...console.process_file import read_account

__all__ = ["Observation", "observe", "show", "show_forever"]

PATIENCE: Final = 3.0
"""Seconds that the gateway has to answer before the supervisor's account is shown instead."""
PERIOD: Final = 1.0


class Observation(NamedTuple):
    status: Status
    partial: bool
    """The gateway did not answer: only processes and warnings are known."""


def observe(home: Path | None) -> Observation:
    """What can be known at the moment.

    Raises:
        P2PError: no daemon runs, or it cannot be asked.
    """
    place = Home.find(home)
    try:
        status = ask(home, GetStatus(), StatusReply, timeout=PATIENCE).status
    except (DaemonBusy, DaemonNotRunning, DeadlineExceeded):
        account = read_account(place)
        if account is None:
            raise
        why = (
            "the gateway does not answer, so only the processes are shown, as the supervisor knows them; "
            f"if it does not come back by itself within seconds, see {place.logs}"
        )
        return Observation(account.as_status(place, boot_ms(), [why]), True)
    if not status.processes and (account := read_account(place)) is not None:
        status = replace(status, processes=account.as_status(place, boot_ms(), []).processes)
    return Observation(status, False)


def show(home: Path | None, *, json: bool) -> Exit:
    """Prints the status once."""
    seen = observe(home)
    _print(seen, json=json)
    return Exit.DAEMON if seen.partial else Exit.OK


def show_forever(home: Path | None, *, json: bool) -> None:
    """Print the status every second: on a terminal in place, else, or with TERM=dumb, one after the other.

    Raises:
        P2PError: no daemon runs at the start. Later on that is shown, until one does again.
    """
    seen = observe(home)
    if is_terminal() and not json and os.environ.get("TERM") not in (None, "", "dumb"):
        _show_live(home, seen)
        return
    while True:
        _print(seen, json=json)
        seen = _next(home, seen)


def _print(seen: Observation, *, json: bool) -> None:
    if json:
        put_json(seen.status)
        return
    from .dashboard import printed

    colour = is_terminal() or bool(os.environ.get("FORCE_COLOR"))
    put_raw(f"{printed(seen.status, partial=seen.partial, colour=colour)}\n".encode())  # safe: the dashboard sees to it


def _next(home: Path | None, last: Observation) -> Observation:
    while True:
        time.sleep(PERIOD)
        try:
            return observe(home)
        except P2PError as error:
            say(f"fastn-p2p: {error}")


def _show_live(home: Path | None, seen: Observation) -> None:
    from .dashboard import printed
    from .live import watch

    gone = ""

    def renew() -> None:
        nonlocal seen, gone
        try:
            seen, gone = observe(home), ""
        except P2PError as error:
            gone = str(error)

    def lines(columns: int) -> list[str]:
        shown = printed(seen.status, partial=seen.partial, width=columns, colour=True).splitlines()
        if not gone:
            return shown
        return [*textwrap.wrap(f"{gone} Waiting for it; this is what was seen last:", columns), "", *shown]

    watch(lines, renew, PERIOD)
