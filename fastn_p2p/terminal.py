"""What goes to which stream: data to standard output, words for people to standard error, nothing else.

Names, addresses and errors can come from other people's machines, so control characters never reach the terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from .exits import Exit

__all__ = ["hold_streams", "is_terminal", "plain", "put", "say", "table"]

_VISIBLE: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (9, 10)}


def plain(text: str) -> str:
    """``text`` with control characters, except tab and line feed, made visible."""
    return text.translate(_VISIBLE)


def hold_streams() -> None:
    """Keeps descriptors 0 to 2 from becoming somebody's file or socket where whoever started us has closed them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def is_terminal() -> bool:
    """Whether standard output is one."""
    return sys.stdout is not None and sys.stdout.isatty()


def put(data: str | bytes, *, end: bytes = b"\n") -> None:
    """Writes data to standard output at once. When nobody reads it any more the command ends with ``Exit.PIPE``.

    Raises:
        OSError: it cannot be written.
    """
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    if sys.stdout is None:
        raise OSError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(raw + end)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit: let it do so into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(Exit.PIPE) from None
    except OSError as error:
        raise OSError(f"cannot write to standard output: {error.strerror}") from error


def say(words: str) -> None:
    """Words for people, on standard error. It does not matter whether anybody reads them."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        print(plain(words), file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows on standard output: aligned and with a header on a terminal, else one tab between fields and no header."""
    if not rows:
        return
    if not is_terminal():
        put("\n".join("\t".join(row) for row in rows))
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, map(plain, row), widths)).rstrip() for row in (header, *rows)]
    put("\n".join(lines))
