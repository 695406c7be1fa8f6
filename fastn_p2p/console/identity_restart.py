"""Message of a command that has replaced an identity's process: what was open there has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastn_p2p_client.home import Home

from .output import write_message
from .process_snapshot import read_process_file


@contextmanager
def report_restart(home: Path | None, identity: str) -> Iterator[None]:
    """Print a message at the end if the process of an identity was replaced meanwhile, to get other permissions."""
    found = Home.find(home)
    before = _pid(found, identity)
    yield
    if before and _pid(found, identity) != before:
        write_message(
            f"{identity}'s process was restarted, because its permissions have changed. Calls and sessions of its "
            "other protocols have ended."
        )


def _pid(home: Home, identity: str) -> int:
    snapshot = read_process_file(home)
    processes = [] if snapshot is None else snapshot.processes
    return next((each.pid for each in processes if each.name == f"identity-{identity}"), 0)
