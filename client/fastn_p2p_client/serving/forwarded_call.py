"""Calls that a protocol passes on to other processes, as they travel.

Problem: a task, and decoding and encoding what only passes through, took a third of the processor time of a call that
workers execute. Idea: a handler that takes a ``ForwardedCall`` returns a future of the answer.
"""

from __future__ import annotations

import time

from ..ipc.messages import DeliverCall
from ..request_id import DAEMON_ID, full_id


class ForwardedCall:
    """Call as it travels. A handler of requests that takes it, and nothing else, is called inside the event loop.

    It returns a future of the answer's header and payload, or of an exception that any handler may raise. The
    dispatcher cancels the future when the deadline passes, and when the caller cancels.

    Attributes:
        message: header of the call.
        payload: the request as msgpack.
        deadline: time at which the caller stops waiting, in seconds of ``time.monotonic()``.
    """

    __slots__ = ("_correlation", "deadline", "message", "payload")

    def __init__(self, message: DeliverCall, correlation: bytes, payload: bytes, deadline: float) -> None:
        self.message = message
        self.payload = payload
        self.deadline = deadline
        self._correlation = correlation

    @property
    def request_id(self) -> str:
        """Name of the call in logs; see ``CallContext``."""
        message = self.message
        return full_id(message.request_id, self._correlation[DAEMON_ID:]) or message.call_id.hex()

    def remaining(self) -> float:
        """Return the seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())
