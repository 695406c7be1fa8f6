"""How a message looks. Texts come from other people's machines: what could move a cursor, or hide, is made visible."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.chat.messages import MessageState
from fastn_p2p_client.plain_text import plain, plain_lines

MARKS: Final[dict[MessageState, str]] = {"kept": "✓", "delivered": "✓✓", "seen": "✓✓ seen"}
"""Of one's own messages."""


def typed(text: str) -> str:
    """Text from a keyboard or a clipboard as it can be sent: each byte that was no UTF-8 becomes U+FFFD (�)."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def escape_text(text: str) -> str:
    """As it may go to a terminal: its lines, and everything else that does something made visible."""
    return plain_lines(text.replace("\t", "    "))


def escape_line(text: str) -> str:
    """The same on one line: a line feed is ``\\n``, a backslash two, so that a script can undo it."""
    return plain(text.replace("\\", "\\\\"))
