"""``fastn-p2p status --watch`` on a terminal: redrawn every second on the alternate screen, scrolled with keys."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Final, TextIO

from ...console.output import put_raw

KEYS: Final = "q ends, ↑ ↓ PgUp PgDn Home End scroll"
_BEGIN_SCREEN: Final = b"\x1b[?1049h\x1b[?25l"
_END_SCREEN: Final = b"\x1b[?25h\x1b[?1049l"
_TICK: Final = 0.1
"""Seconds between two checks of the keyboard and of the size of the window."""
_MOVES: Final[dict[bytes, tuple[int, int]]] = {
    **dict.fromkeys((b"\x1b[A", b"\x1bOA", b"k"), (-1, 0)),
    **dict.fromkeys((b"\x1b[B", b"\x1bOB", b"j", b"\r"), (1, 0)),
    **dict.fromkeys((b"\x1b[5~", b"b"), (0, -1)),
    **dict.fromkeys((b"\x1b[6~", b" "), (0, 1)),
    **dict.fromkeys((b"\x1b[H", b"\x1b[1~", b"\x1bOH", b"g"), (0, -1_000_000)),
    **dict.fromkeys((b"\x1b[F", b"\x1b[4~", b"\x1bOF", b"G"), (0, 1_000_000)),
}
"""Key → lines and pages to scroll down."""

LinesForWidth = Callable[[int], list[str]]
"""Function from the number of columns to the lines to show. Control characters in the lines are escaped."""


def watch(lines_for: LinesForWidth, renew: Callable[[], None], period: float) -> None:
    """Show lines until ``q`` is typed, then restore the terminal.

    Args:
        lines_for: returns the lines to show.
        renew: updates what ``lines_for`` returns; called every ``period`` seconds.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    with _screen() as keyboard:
        top, due, drawn = 0, time.monotonic() + period, b""
        while True:
            columns, rows = _size()
            lines = lines_for(columns)
            room = max(1, rows - 1)
            top = max(0, min(top, len(lines) - room))
            picture = _picture(lines, top, room, columns)
            if picture != drawn:
                put_raw(picture)
                drawn = picture
            key = _key(keyboard, max(0.0, min(_TICK, due - time.monotonic())))
            if key == b"q":
                return
            line, page = _MOVES.get(key, (0, 0))
            top = max(0, min(top + line + page * room, len(lines)))
            if time.monotonic() >= due:
                renew()
                due = time.monotonic() + period


def _size() -> tuple[int, int]:
    """Return the columns and rows of the terminal. ``COLUMNS`` and ``LINES`` do not follow a resized window."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns = rows = 0
    fallback = shutil.get_terminal_size()
    return columns or fallback.columns, rows or fallback.lines


def _picture(lines: list[str], top: int, room: int, columns: int) -> bytes:
    shown = lines[top : top + room]
    last = f"lines {top + 1}-{top + len(shown)} of {len(lines)}  {KEYS}"[: columns - 1] if len(lines) > room else ""
    rows = [*shown, *[""] * (room - len(shown)), f"\x1b[7m{last}\x1b[0m" if last else ""]
    return ("\x1b[H" + "\r\n".join(f"{row}\x1b[0m\x1b[K" for row in rows)).encode()


def _key(keyboard: int | None, timeout: float) -> bytes:
    """Return the next key, or nothing after ``timeout`` seconds."""
    if keyboard is None:
        time.sleep(timeout)
        return b""
    if not select.select([keyboard], [], [], timeout)[0]:
        return b""
    typed = os.read(keyboard, 64)
    if not typed:
        time.sleep(timeout)  # end of input: do not spin
    return typed


@contextlib.contextmanager
def _screen() -> Iterator[int | None]:
    """Switch to the alternate screen; yield the descriptor to read keys from, or None if input is no terminal."""
    keyboard = sys.stdin.fileno() if sys.stdin is not None and _is_terminal(sys.stdin) else None
    before = termios.tcgetattr(keyboard) if keyboard is not None else None

    def enter_screen() -> None:
        if keyboard is not None:
            tty.setcbreak(keyboard, termios.TCSADRAIN)  # Ctrl-C and Ctrl-Z still send signals
        put_raw(_BEGIN_SCREEN)

    def exit_screen() -> None:
        put_raw(_END_SCREEN)
        if keyboard is not None and before is not None:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def suspend(_number: int, _frame: object) -> None:
        exit_screen()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter_screen()

    earlier = signal.signal(signal.SIGTSTP, suspend)
    enter_screen()
    try:
        yield keyboard
    finally:
        signal.signal(signal.SIGTSTP, earlier)
        exit_screen()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False
