"""Request ids: one text that names a call or session in all processes and logs of both daemons.

The program may choose the id. Otherwise a retried call has its call id, in hexadecimal.

Problem: with an id of its own in each header, no process could cache the headers of calls, and a call would cost 7 %
more CPU. Idea: any other call has a random prefix of its connection, and a number that travels beside the header: the
correlation id of the program. ``*`` at the end of an id in a message stands for the number in hexadecimal.

A daemon replaces an id that is too long or has other characters, so that it is safe in every log.
"""

from __future__ import annotations

import os
from asyncio import current_task
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from .errors import InvalidName
from .limits import MAX_REQUEST_ID

if TYPE_CHECKING:
    from logging import LogRecord

NUMBERED: Final = "*"
"""End of an id in a message, in the place of its number."""
MAX_NUMBER: Final = 8
"""Bytes of a number: the most that has a place in a correlation id of a daemon."""
VARIABLE: Final = "running"
"""Local variable of the dispatcher's coroutine that has the request."""
DAEMON_ID: Final = 8
"""Bytes of the correlation id of a delivered call before the number."""
_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._+/="


def new_request_id() -> str:
    """Return a random id: 16 hexadecimal digits."""
    return os.urandom(8).hex()


def new_prefix() -> str:
    """Return the random part of the ids of one connection: 12 hexadecimal digits."""
    return os.urandom(6).hex()


def full_id(text: str, number: bytes) -> str:
    """Return an id as people read it, in which ``*`` is replaced."""
    return text[:-1] + number.hex().lstrip("0") if text[-1:] == NUMBERED else text


def is_request_id(text: str) -> bool:
    """Return whether ``text`` has the length and the characters of an id; it may be empty."""
    return len(text) <= MAX_REQUEST_ID and not text.strip(_CHARACTERS)


@lru_cache(maxsize=256)
def _is_prefix(text: str) -> bool:
    return text != NUMBERED and is_request_id(text[:-1] + "0" * (2 * MAX_NUMBER))


def check_request_id(text: str) -> str:
    """Return ``text`` if it is an id.

    Raises:
        InvalidName: it is too long or has other characters.
    """
    if is_request_id(text) and text:
        return text
    reason = f"it has at most {MAX_REQUEST_ID} ASCII letters, digits and - . _ + / =, and no spaces"
    raise InvalidName(name=text[: 2 * MAX_REQUEST_ID], what="a request id", reason=reason)


def safe_id(text: str, number: bytes, call_id: bytes = b"") -> tuple[str, bytes]:
    """Return the id and the number of a request as they may be passed on and logged.

    An id that is too long or has other characters is replaced. A request of an older program or daemon has none: a
    retried call gets its call id in hexadecimal, the same in all attempts, and any other request a random id.
    """
    if text[-1:] == NUMBERED:
        if len(number) <= MAX_NUMBER and _is_prefix(text):
            return text, number
        text = full_id(text, number)
    if text and is_request_id(text):
        return text, b""
    return call_id.hex() or new_request_id(), b""


class ServedRequest:
    """Request that a handler serves at present."""

    __slots__ = ()

    @property
    def request_id(self) -> str:
        """Request id; empty once the handler has ended, because tasks that it leaves behind go on."""
        return ""

    @property
    def traceparent(self) -> str:
        """Span of the caller (W3C Trace Context); empty for none."""
        return ""


SERVED_REQUEST: Final[ContextVar[ServedRequest | None]] = ContextVar("fastn_p2p_served_request", default=None)
"""Request whose handler runs in this thread, or session whose handler runs in this task."""


def served_request() -> ServedRequest | None:
    """Return the request whose handler runs in this task or thread; None outside of handlers.

    The task of an ``async`` handler of a call has it in a local variable of its coroutine: a context variable would
    take 0.7 us of each call, a seventh of what a call costs its process. Tasks that such a handler starts have none,
    unless it takes a ``CallContext``: then there is the variable, too.
    """
    served = SERVED_REQUEST.get()
    if served is not None:
        return served
    try:
        task = current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
    frame = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    found = None if frame is None else frame.f_locals.get(VARIABLE)
    return found if isinstance(found, ServedRequest) else None


def served_request_id() -> str:
    """Return the id of the request that is served in this task or thread; empty outside of handlers."""
    served = served_request()
    return "" if served is None else served.request_id


def logged_request_id(record: LogRecord) -> str:
    """Return the id that a log record was given as ``extra={"request_id": ...}``, or that of the request which the code
    serves that has made it; empty if there is none."""
    return str(getattr(record, "request_id", "")) or served_request_id()
