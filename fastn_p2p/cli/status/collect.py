"""Source of ``fastn-p2p status``: the gateway or, if it does not answer, the supervisor's process file."""

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
from fastn_p2p_client.ipc.messages import GetStatus, Status

from ...console.control_request import request_daemon
from ...console.exit_codes import ExitCode
from ...console.output import end_with_reader, is_terminal, put_json, put_raw, write_problem
from ...console.process_snapshot import read_process_file

STATUS_TIMEOUT: Final = 3.0
"""Seconds that the gateway has to answer. After them the supervisor's process file is shown."""
PERIOD: Final = 1.0
"""Seconds between two updates of ``status --watch``."""


class StatusSnapshot(NamedTuple):
    """A status, and whether it is complete."""

    status: Status
    partial: bool
    """The gateway did not answer. Only processes and warnings are known."""


def collect_status(home: Path | None) -> StatusSnapshot:
    """Return the status of the daemon of ``home``.

    Raises:
        P2PError: no daemon runs, or the request failed.
    """
    found = Home.find(home)
    try:
        status = request_daemon(home, GetStatus(), timeout=STATUS_TIMEOUT).status
    except (DaemonBusy, DaemonNotRunning, DeadlineExceeded):
        snapshot = read_process_file(found)
        if snapshot is None:
            raise
        why = (
            "the gateway does not answer. Only the processes that the supervisor knows are shown. "
            f"The gateway should be back within seconds; if not, see {found.logs}"
        )
        return StatusSnapshot(snapshot.as_status(found, boot_ms(), [why]), True)
    if not status.processes and (snapshot := read_process_file(found)) is not None:
        status = replace(status, processes=snapshot.as_status(found, boot_ms(), []).processes)
    return StatusSnapshot(status, False)


def show(home: Path | None, *, json: bool) -> ExitCode:
    """Print the status once and return the exit code."""
    seen = collect_status(home)
    _print(seen, json=json)
    return ExitCode.DAEMON if seen.partial else ExitCode.OK


def show_forever(home: Path | None, *, json: bool) -> None:
    """Print the status every second: in place on a terminal; otherwise, or with TERM=dumb, one after the other.

    Raises:
        P2PError: no daemon runs at the start. If it ends later, this is shown until a daemon runs again.
    """
    end_with_reader()
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
    text = render_text(seen.status, partial=seen.partial, colour=colour)
    put_raw(f"{text}\n".encode())  # the dashboard has escaped control characters


def _next(home: Path | None, last: StatusSnapshot) -> StatusSnapshot:
    while True:
        time.sleep(PERIOD)
        try:
            return collect_status(home)
        except P2PError as error:
            write_problem(str(error))


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
        return [*textwrap.wrap(f"{gone}. Waiting for the daemon. Last known status:", columns), "", *shown]

    watch(lines, renew, PERIOD)
