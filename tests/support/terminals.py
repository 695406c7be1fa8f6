"""A pseudo-terminal with a command, and a screen that interprets the command's output."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import pyte

from tests.support.daemons import CLI, DEADLINE

__all__ = ["Tty", "on_terminal"]

_WHERE = b"\x1b[6n"
"""A program asks where the cursor is."""


class Tty:
    """Terminal of a command: its screen, and its keyboard."""

    def __init__(self, master: int, pid: int, rows: int, columns: int) -> None:
        self._master = master
        self.pid = pid
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        """Everything that it has written."""
        self._resize(rows, columns)

    def type(self, text: str | bytes) -> None:
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window: the kernel sends SIGWINCH to the command."""
        self._screen.resize(rows, columns)
        self._resize(rows, columns)

    def _resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def rows(self) -> list[str]:
        """Return the rows of the screen."""
        return [row.rstrip() for row in self._screen.display]

    @property
    def cells(self) -> list[list[pyte.screens.Char]]:
        """Return the characters of the screen with their colors, row by row."""
        return [
            [row[column] for column in range(self._screen.columns)]
            for row in map(self._screen.buffer.__getitem__, range(self._screen.lines))
        ]

    @property
    def scrolled(self) -> list[str]:
        """Return the rows that have left the screen at the top, oldest first."""
        above = self._screen.history.top
        return ["".join(row[column].data for column in range(self._screen.columns)).rstrip() for row in above]

    def until(self, condition: Callable[[list[str]], object], what: str, timeout: float = DEADLINE) -> None:
        """Draw until the rows are like that."""
        deadline = time.monotonic() + timeout
        while not condition(self.rows):
            if time.monotonic() > deadline or not self._draw():
                raise AssertionError(f"not on the screen: {what}\n" + "\n".join(self.rows).rstrip())

    def ends(self, timeout: float = DEADLINE) -> int:
        """Draw until the command ends; its exit code."""
        deadline = time.monotonic() + timeout
        while self._draw():
            assert time.monotonic() < deadline, "\n".join(self.rows)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _draw(self) -> bool:
        """Draw the bytes that the command has written. Return False at the end."""
        poll = select.poll()  # select(2) knows no descriptors above 1023
        poll.register(self._master, select.POLLIN)
        if not poll.poll(50):
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the command has closed its side
            return False
        self.raw += data
        before, *questions = data.split(_WHERE)
        self._stream.feed(before)
        for after in questions:
            os.write(self._master, b"\x1b[%d;%dR" % (self._screen.cursor.y + 1, self._screen.cursor.x + 1))
            self._stream.feed(after)
        return True


@contextmanager
def on_terminal(
    env: Mapping[str, str],
    *arguments: str,
    rows: int = 24,
    columns: int = 80,
    term: str = "xterm-256color",
    command: Sequence[str] = CLI,
) -> Iterator[Tty]:
    """Runs ``fastn-p2p``, or another command, there. It is ended at the end, if it has not by itself.

    ``term``: none when it is empty.
    """
    pid, master = pty.fork()
    if pid == 0:
        others = {name: value for name, value in env.items() if name != "TERM"}
        os.execvpe(command[0], [*command, *arguments], {**others, **({"TERM": term} if term else {})})
    tty = Tty(master, pid, rows, columns)
    try:
        yield tty
    finally:
        os.close(master)  # SIGHUP
        with suppress(ChildProcessError):  # its exit code has been asked for
            os.waitpid(pid, 0)
