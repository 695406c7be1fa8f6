"""Text of messages for terminals and scripts. It comes from peers, so control and hidden characters are escaped."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.chat.messages import MessageState
from fastn_p2p_client.plain_text import plain, plain_lines

MARKS: Final[dict[MessageState, str]] = {"kept": "✓", "delivered": "✓✓", "seen": "✓✓ seen"}
"""Mark behind an own message, by its state."""


def decode_typed(text: str) -> str:
    """Return text from a keyboard or a clipboard with each byte that is not UTF-8 replaced by U+FFFD (�)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def escape_text(text: str) -> str:
    """Return text for a terminal: line feeds stay, other control and hidden characters are escaped."""
    return plain_lines(text.replace("\t", "    "))


def escape_line(text: str) -> str:
    """Return text on one line for a script. A line feed becomes ``\\n`` and a backslash two, so this can be undone."""
    return plain(text.replace("\\", "\\\\"))
