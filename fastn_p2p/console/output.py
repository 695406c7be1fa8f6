"""Output of all commands: results to standard output, messages to standard error.

Names, addresses, messages and errors can come from peers. All functions but ``put_raw`` escape control characters in
them (see ``fastn_p2p_client.plain_text``). No other module prints. If standard output is not a terminal, results are
written unchanged, except the fields of tables.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

from fastn_p2p_client.plain_text import plain, plain_json, plain_lines

from .exit_codes import ExitCode

PROGRAM: Final = "fastn-p2p"

_quiet = False


class _Closed(io.TextIOBase):
    """Standard output that is missing or has failed. Every write fails, also those of help and demo."""

    def write(self, _text: str) -> int:
        raise OSError("standard output is closed")


def reserve_standard_streams() -> None:
    """Open descriptors 0 to 2 if the parent has closed them, so that no file or socket gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open(2) returns the lowest free number
    if sys.stdout is None:
        sys.stdout = _Closed()


def has_output() -> bool:
    """Return whether the process has a standard output."""
    return sys.stdout is not None and not isinstance(sys.stdout, _Closed)


def end_streams() -> OSError | None:
    """Flush both streams at the end of a command. Return the error of standard output, if it failed."""
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
    """Write text to standard output in UTF-8. On a terminal, control characters are escaped.

    Raises:
        OSError: standard output cannot be written.
    """
    if is_terminal():
        put_raw((plain_lines(text) + end).encode(sys.stdout.encoding, "backslashreplace"))
    else:
        put_raw(_to_utf8(text + end))


def put_json(*values: Any) -> None:
    """Write each value to standard output as JSON on one line. On a terminal, control characters are escaped.

    Raises:
        OSError: standard output cannot be written.
    """
    from .json_values import to_json

    lines = [to_json(value) for value in values]
    if is_terminal():
        only_ascii = sys.stdout.encoding.lower() not in ("utf-8", "utf8")
        lines = [plain_json(line.decode(), only_ascii=only_ascii).encode() for line in lines]
    put_raw(b"".join(line + b"\n" for line in lines))


def put_raw(data: bytes) -> None:
    """Write bytes to standard output and flush it.

    Raises:
        SystemExit: the reader of the pipe, or the terminal, is gone; the exit code is ``ExitCode.PIPE``.
        OSError: standard output cannot be written.
    """
    if not has_output():
        raise OSError("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        is_gone = isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and _is_device(sys.stdout))
        _divert(sys.stdout)
        sys.stdout = _Closed()
        if is_gone:
            raise SystemExit(ExitCode.PIPE) from None
        raise OSError(f"cannot write to standard output: {error.strerror}") from error


def end_with_reader() -> None:
    """End the process with ``ExitCode.PIPE`` as soon as the reader of the pipe, or the terminal, is gone.

    For commands that only watch: they may have nothing to write for hours, and nothing to finish.
    """
    import _thread
    import select

    def wait() -> None:
        poll = select.poll()
        poll.register(output, 0)  # no event but the end of the other side
        while not poll.poll():
            continue
        os._exit(ExitCode.PIPE)

    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        output = sys.stdout.fileno()
        _thread.start_new_thread(wait, ())


def set_quiet(quiet: bool) -> None:
    """Choose whether messages are omitted from now on. Results, problems and questions are written in any case."""
    global _quiet
    _quiet = quiet


def write_message(text: str) -> None:
    """Write one line to standard error. Ignores a stream that cannot be written."""
    if not _quiet:
        _to_standard_error(plain(text) + "\n")


def write_lines(text: str) -> None:
    """Write several lines to standard error. Ignores a stream that cannot be written."""
    if not _quiet:
        _to_standard_error(plain_lines(text) + "\n")


def write_error_lines(text: str) -> None:
    """Write several lines about what is wrong to standard error, also after ``set_quiet``."""
    _to_standard_error(plain_lines(text) + "\n")


def write_problem(text: str) -> None:
    """Write one line about what is wrong to standard error, also after ``set_quiet``."""
    _to_standard_error(plain(f"{PROGRAM}: {text}") + "\n")


def confirmed(question: str) -> bool:
    """Ask a question on standard error. Return whether the answer on standard input is yes."""
    _to_standard_error(f"{plain_lines(question)} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def typed(question: str) -> str:
    """Ask a question on standard error, and return the line that is typed on standard input."""
    _to_standard_error(f"{plain_lines(question)} ")
    return sys.stdin.readline().strip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, paged: bool = False) -> None:
    """Write rows to standard output: aligned with a header on a terminal, otherwise with tabs and without a header.

    Control characters are always escaped, because tables are piped into pagers too. JSON has the exact values.

    Args:
        paged: use the user's pager if the rows do not fit on the terminal.
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
    if paged and sys.stdin is not None and sys.stdin.isatty():
        from pydoc import pager  # imported late, as shutil: few commands page
        from shutil import get_terminal_size

        if len(lines) >= get_terminal_size().lines:
            pager("\n".join(lines) + "\n")
            return
    write_result("\n".join(lines))


def _to_utf8(text: str) -> bytes:
    """Encode text. The name of a file that is not UTF-8 becomes its original bytes (PEP 383)."""
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


def _is_device(stream: TextIO) -> bool:
    """Return whether a stream is a terminal, also one that is gone."""
    return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)


def _divert(stream: TextIO) -> None:
    """Redirect a stream to /dev/null. The interpreter flushes it at exit, and would otherwise fail with exit code 120
    and a traceback because of the data that is still buffered."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
