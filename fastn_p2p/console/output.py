"""Terminal output of all commands: data to standard output, words for people to standard error.

Names, addresses, messages and errors can come from other people's machines. ``write_message``, ``write_result``,
``put_json``, ``table`` and ``confirmed`` make them safe to show (see ``fastn_p2p_client.plain_text``); no other module
prints. Standard output that is no terminal takes data exactly as it is, except the fields of tables.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from fastn_p2p_client.plain_text import plain, plain_json, plain_lines

from .exit_codes import ExitCode


class _Closed(io.TextIOBase):
    """Standard output of a process that was started without one: what writes there fails, help and demo too."""

    def write(self, _text: str) -> int:
        raise OSError("standard output is closed")


def reserve_standard_streams() -> None:
    """Keep descriptors 0 to 2 from becoming somebody's file or socket where the parent process has closed them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = _Closed()


def has_output() -> bool:
    """Return whether there is a standard output."""
    return sys.stdout is not None and not isinstance(sys.stdout, _Closed)


def end_streams() -> OSError | None:
    """Write what is still held back, at the end of a command; return why standard output did not take it."""
    failure: OSError | None = None
    for stream in (sys.stderr, sys.stdout):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError as error:
            _divert(stream)
            failure = error if stream is sys.stdout else None
    return failure


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def write_result(text: str, *, end: str = "\n") -> None:
    """Write text to standard output: made safe to show on a terminal, else exactly as it is, in UTF-8.

    Raises:
        OSError: it cannot be written.
    """
    if is_terminal():
        put_raw((plain_lines(text) + end).encode(sys.stdout.encoding, "backslashreplace"))
    else:
        put_raw(_exactly(text + end))


def put_json(*values: Any) -> None:
    """Write each value as JSON on a line to standard output: on a terminal with escapes for what is not safe there.

    Raises:
        OSError: it cannot be written.
    """
    from .json_values import to_json

    lines = [to_json(value) for value in values]
    if is_terminal():
        only_ascii = sys.stdout.encoding.lower() not in ("utf-8", "utf8")
        lines = [plain_json(line.decode(), only_ascii=only_ascii).encode() for line in lines]
    put_raw(b"".join(line + b"\n" for line in lines))


def put_raw(data: bytes) -> None:
    """Write bytes to standard output at once. When nobody reads it any more the command ends with ``ExitCode.PIPE``.

    Raises:
        OSError: it cannot be written.
    """
    if not has_output():
        raise OSError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _divert(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(ExitCode.PIPE) from None
        raise OSError(f"cannot write to standard output: {error.strerror}") from error


def write_message(words: str) -> None:
    """Write one line for people to standard error. It does not matter whether anybody reads it."""
    _to_standard_error(plain(words) + "\n")


def say_lines(words: str) -> None:
    """Write several lines for people to standard error."""
    _to_standard_error(plain_lines(words) + "\n")


def confirmed(question: str) -> bool:
    """Ask on standard error, and return whether the answer from standard input is yes."""
    _to_standard_error(f"{plain_lines(question)} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, paged: bool = False) -> None:
    """Rows on standard output: aligned and with a header on a terminal, else one tab between fields and no header.

    Fields are made safe to show everywhere: tables are piped into pagers too. JSON has them exactly.

    Args:
        paged: rows that do not fit on the terminal go through the pager of the user.
    """
    if not rows:
        return
    shown = [[plain(field) for field in row] for row in rows]
    if not is_terminal():
        write_result("\n".join(map("\t".join, shown)))
        return
    shown.insert(0, list(header))
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]
    if paged and len(lines) >= shutil.get_terminal_size().lines and sys.stdin is not None and sys.stdin.isatty():
        from click import echo_via_pager

        echo_via_pager("\n".join(lines))
    else:
        write_result("\n".join(lines))


def _exactly(text: str) -> bytes:
    """The UTF-8 of ``text``; the name of a file that is no UTF-8 becomes its bytes (PEP 383)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _to_standard_error(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _divert(sys.stderr)


def _divert(stream: TextIO) -> None:
    """Have everything else that is written there go nowhere: the interpreter flushes once more when it ends, and would
    end with 120 and a traceback because of what the stream still holds."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
