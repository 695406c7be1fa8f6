"""Starts: the daemon, the client library, and the end of a daemon whose supervisor is killed."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from .results import BenchmarkError, Outcome, Table, milliseconds, spread
from .system import Daemon, clean_environment
from .worker import CHECKOUT

__all__ = ["measure"]

_IMPORT: Final = "import time; a = time.perf_counter(); import fastn_p2p_client; print(time.perf_counter() - a)"


async def measure(root: Path, times: int, on_progress: Callable[[str], Any]) -> Outcome:
    """Daemons with empty homes below ``root``; each but the first finds its files in the page cache."""
    ready, gone, imports = [], [], []
    environment = clean_environment(FASTN_HOST_DIRECTORY=str(root / "hosts"))
    for number in range(times):
        on_progress(f"starts: {number + 1} of {times}")
        daemon = await Daemon.start(root / f"start-{number}", environment)
        try:
            ready.append(daemon.ready_after)
            gone.append(await daemon.kill())
        finally:
            await daemon.stop()
        imports.append(await _import_time())
    rows = [
        [what, milliseconds(median(samples)), f"{spread(samples)} ms"]
        for what, samples in (
            ("daemon: from the command to its ready line", ready),
            ("client: import fastn_p2p_client", imports),
            ("supervisor killed: until the last process of its daemon is gone", gone),
        )
    ]
    return Outcome(tables=[Table("Starting, and ending hard", ["", "median", "min-max"], rows)])


async def _import_time() -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _IMPORT, stdout=PIPE, env=clean_environment(), cwd=CHECKOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkError("the client cannot be imported")
    return float(output)
