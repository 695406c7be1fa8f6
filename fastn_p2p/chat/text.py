"""How a message looks. Texts come from other people's machines: what could move a cursor, or hide, is made visible."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from ..terminal import plain
from .messages import Mark

__all__ = ["MARKS", "clock", "one_line", "shown", "stamp"]

MARKS: Final[dict[Mark, str]] = {"kept": "✓", "delivered": "✓✓", "seen": "✓✓ seen"}
"""Of one's own messages."""

_INVISIBLE: Final = {
    code: f"\\u{code:04x}"
    for code in (
        0x061C,
        0x200B,
        0x200E,
        0x200F,
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        0xFEFF,
        *range(0xFFF9, 0xFFFC),
    )
}
"""Marks that turn the direction of what follows, separators of lines, and what takes no space. Not the joiners that
scripts and emoji need."""
_TAGS: Final = range(0xE0000, 0xE0080)
"""Letters that nothing shows."""


def shown(text: str) -> str:
    """As it may go to a terminal: its lines, and everything else that does something made visible."""
    visible = plain(text.replace("\t", "    ")).translate(_INVISIBLE)
    return "".join(f"\\U{ord(each):08x}" if ord(each) in _TAGS else each for each in visible)


def one_line(text: str) -> str:
    """The same on one line: a line feed is ``\\n``, a backslash two, so that a script can undo it."""
    return shown(text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n"))


def clock(at: int) -> str:
    """Milliseconds since 1970 as people here read the time of a day; with the day if it is another one."""
    then = datetime.fromtimestamp(at / 1000, UTC).astimezone()
    return then.strftime("%H:%M" if then.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def stamp(at: int) -> str:
    """The same for scripts: UTC, ISO 8601."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
