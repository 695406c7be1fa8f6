"""Read a chunked body by the strict grammar of RFC 9112, 7.1: what is no body is refused as soon as that is certain.

h11 waits for a CR before it looks at a line, so that a client with bare LF would wait forever; in trailers it takes a
bare LF for a line's end.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final, TypeAlias

MAX_SIZE_LINE: Final = 4 * 1024
"""Bytes of the line in front of a chunk. Its extensions are not passed on."""
MAX_TRAILERS: Final = 16 * 1024
_TEXT: Final = rb"[\t -~\x80-\xff]*"
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*|;" + _TEXT + rb")\r\n")
_BEGINS_SIZE_LINE: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:[ \t]*|;" + _TEXT + rb")\r?)?")
HEADER_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(" + _TEXT + rb")\r\n")
_END: Final = b"\r\n"

Trailers: TypeAlias = list[tuple[bytes, bytes]]


class InvalidBody(Exception):
    """The body is not chunked as the standard has it. The text says what is wrong."""


class ChunkedBody:
    """Reader of one body.

    Attributes:
        trailers: set at the end of the body; None before.
        rest: bytes that follow the body.
    """

    def __init__(self) -> None:
        self.trailers: Trailers | None = None
        self.rest = memoryview(b"")
        self._left = 0
        """Bytes that the chunk still has to bring."""
        self._is_behind_chunk = self._is_last = False
        self._buffer = bytearray()
        """Bytes of an incomplete line."""
        self._found: Trailers = []
        self._trailer_bytes = 0

    def feed(self, view: memoryview) -> Generator[memoryview, None, None]:
        """Yield the data that bytes bring. They are not copied.

        Raises:
            InvalidBody: the rest cannot be read.
        """
        while self.trailers is None:
            if self._left:
                part = view[: self._left]
                if not part:
                    return
                self._left -= len(part)
                self._is_behind_chunk = not self._left
                view = view[len(part) :]
                yield part
                continue
            line, view = self._next_line(view)
            if self._is_behind_chunk:
                self._end_chunk(line)
            elif self._is_last:
                self._read_trailer(line)
            else:
                self._read_size(line)
            if line and not line.endswith(b"\n"):
                self._buffer += line
                return
            if not line:
                return
        self.rest = view

    def _next_line(self, view: memoryview) -> tuple[bytes, memoryview]:
        """Return what there is of a line, with its LF if that has come, and what follows."""
        limit = MAX_TRAILERS if self._is_last else MAX_SIZE_LINE
        window = bytes(view[: limit + 1])
        length = window.find(b"\n") + 1 or len(window)
        line = bytes(self._buffer) + window[:length]
        if len(line) > limit:
            raise InvalidBody(f"a line is longer than {limit} bytes")
        self._buffer.clear()
        return line, view[length:]

    def _end_chunk(self, line: bytes) -> None:
        if not _END.startswith(line):
            raise InvalidBody("a chunk does not end with CR and LF where its size says")
        self._is_behind_chunk = line != _END

    def _read_size(self, line: bytes) -> None:
        size = _SIZE_LINE.fullmatch(line)
        if size is not None:
            self._left = int(size[1], 16)
            self._is_last = not self._left
        elif _BEGINS_SIZE_LINE.fullmatch(line) is None:
            raise InvalidBody("the line with a chunk's size is invalid, or does not end with CR and LF")

    def _read_trailer(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILERS:
            raise InvalidBody(f"the trailers are larger than {MAX_TRAILERS} bytes")
        if line == _END:
            self.trailers = self._found
            return
        trailer = HEADER_LINE.fullmatch(line)
        if trailer is None:
            raise InvalidBody("a trailer is invalid, or does not end with CR and LF")
        self._found.append((trailer[1], trailer[2].strip(b" \t")))
