"""QR code of a ticket for a terminal: two modules in each character, light on dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_BORDER: Final = 2
"""Light modules around the code. Four are the standard; readers need two, and a terminal has little room."""
_BLOCKS: Final = {(True, True): " ", (True, False): "▄", (False, True): "▀", (False, False): "█"}
"""Character for the darkness of an upper and a lower module. Blocks are light, as text on a dark terminal is."""


def qr_lines(text: str) -> Iterator[str]:
    """Yield the lines of the code. The text is in upper case there: a QR code has two such characters in 11 bits."""
    import segno  # no other command needs it

    code = segno.make_qr(text.upper(), error="l", boost_error=False)
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=_BORDER)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        yield "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
