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
)

from ...console.control_request import request_daemon
from ...console.exit_codes import ExitCode
from ...console.output import (
    is_terminal,
    put_json,
    put_raw,
    write_message,
)
from ...console.process_file import read_process_file

__all__ = ["StatusSnapshot", "collect_status", "show", "show_forever"]

STATUS_TIMEOUT: Final = 3.0
"""Seconds that the gateway has to answer before the supervisor's account is shown instead."""
PERIOD: Final = 1.0


class StatusSnapshot(NamedTuple):
    status: Status
    partial: bool
    """The gateway did not answer: only processes and warnings are known."""


def collect_status(home: Path | None) -> StatusSnapshot:
    """What can be known at the moment.

    Raises:
        P2PError: no daemon runs, or it cannot be asked.
    """
    place = Home.find(home)
    try:
        status = request_daemon(home, GetStatus(), timeout=STATUS_TIMEOUT).status
    except (DaemonBusy, DaemonNotRunning, DeadlineExceeded):
        account = read_process_file(place)
        if account is None:
            raise
        why = (
            "the gateway does not answer, so only the processes are shown, as the supervisor knows them; "
            f"if it does not come back by itself within seconds, see {place.logs}"
        )
        return StatusSnapshot(account.as_status(place, boot_ms(), [why]), True)
    if not status.processes and (account := read_process_file(place)) is not None:
        status = replace(status, processes=account.as_status(place, boot_ms(), []).processes)
    return StatusSnapshot(status, False)


def show(home: Path | None, *, json: bool) -> ExitCode:
    """Prints the status once."""
    seen = collect_status(home)
    _print(seen, json=json)
    return ExitCode.DAEMON if seen.partial else ExitCode.OK


def show_forever(home: Path | None, *, json: bool) -> None:
    """Print the status every second: on a terminal in place, else, or with TERM=dumb, one after the other.

    Raises:
        P2PError: no daemon runs at the start. Later on that is shown, until one does again.
    """
    seen = collect_status(home)
    if is_terminal() and not json and os.environ.get("TERM") not in (None, "", "dumb"):
        _show_live(home, seen)
        return
    while True:
        _print(seen, json=json)
        seen = _next(home, seen)


def _print(seen: StatusSnapshot, *, json: bool) -> None:
    if json:
        put_json(seen.status)
        return
    from .dashboard import render_text

    colour = is_terminal() or bool(os.environ.get("FORCE_COLOR"))
    put_raw(
        f"{render_text(seen.status, partial=seen.partial, colour=colour)}\n".encode()
    )  # safe: the dashboard sees to it


def _next(home: Path | None, last: StatusSnapshot) -> StatusSnapshot:
    while True:
        time.sleep(PERIOD)
        try:
            return collect_status(home)
        except P2PError as error:
            write_message(f"fastn-p2p: {error}")


def _show_live(home: Path | None, seen: StatusSnapshot) -> None:
    from .dashboard import render_text
    from .live import watch

    gone = ""

    def renew() -> None:
        nonlocal seen, gone
        try:
            seen, gone = collect_status(home), ""
        except P2PError as error:
            gone = str(error)

    def lines(columns: int) -> list[str]:
        shown = render_text(seen.status, partial=seen.partial, width=columns, colour=True).splitlines()
        if not gone:
            return shown
        return [*textwrap.wrap(f"{gone} Waiting for it; this is what was seen last:", columns), "", *shown]

    watch(lines, renew, PERIOD)
