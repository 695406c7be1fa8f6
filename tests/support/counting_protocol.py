"""Protocol that notes each number that it is given, and which process it was."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from fastn_p2p_client.protocol import Protocol, request

__all__ = ["Counting", "read_executions"]

_FILE: Final = "executions"
_SLOW: Final = 10
"""Each number that this divides is answered later, so that processes die between an execution and its reply."""


class Counting(Protocol):
    """Public. Replies to each number with its negative once the number is in a file of its workspace."""

    public = True

    async def on_activate(self) -> None:
        self._file = os.open(self.context.workspace / _FILE, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    @request
    async def note(self, number: int) -> int:
        os.write(self._file, b"%d %d\n" % (number, os.getpid()))
        if number % _SLOW == 0:
            await asyncio.sleep(0.02)
        return -number


def read_executions(home: Path) -> list[tuple[int, int]]:
    """Return each number that a daemon has executed, and the pid of the process that did."""
    texts = [path.read_text().rpartition("\n")[0] for path in home.rglob(_FILE)]  # complete lines
    return [(int(number), int(pid)) for text in texts for number, pid in map(str.split, text.splitlines())]
