"""Log lines to the journal of systemd, if standard error leads there (sd-daemon(3), ``JOURNAL_STREAM``).

A line that the journal does not take at once is left out: the log file has it, and no process waits for the journal.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import Final

_STDERR: Final = 2
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Priorities of syslog(3) by the lowest level that has them; what is below has priority 7."""


class JournalWriter:
    """Writer of log lines to the journal.

    Args:
        actor: name of the process, with which each line begins.
        stream: standard error.
    """

    def __init__(self, actor: str, stream: socket.socket) -> None:
        self._actor = actor
        self._stream = stream

    def write(self, level: int, text: str) -> None:
        """Send a line, or several with a traceback, with the priority of a level."""
        priority = next((each for least, each in _PRIORITIES if level >= least), 7)
        lines = "".join(f"<{priority}>{self._actor}: {line}\n" for line in text.splitlines())
        with suppress(OSError):
            self._stream.send(lines.encode("utf-8", "backslashreplace"), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._stream.close()


def find_journal(actor: str, stream: str, descriptor: int = _STDERR) -> JournalWriter | None:
    """Return a writer to the journal; None if standard error does not lead there.

    Args:
        actor: name of the process.
        stream: device and inode of the journal, as ``JOURNAL_STREAM`` has them.
        descriptor: standard error.
    """
    try:
        found = os.fstat(descriptor)
        if stream != f"{found.st_dev}:{found.st_ino}":
            return None
        return JournalWriter(actor, socket.socket(fileno=os.dup(descriptor)))
    except OSError:
        return None
