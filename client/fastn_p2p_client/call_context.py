"""``CallContext``: deadline and cancellation of one call, for its handler."""

from __future__ import annotations

import time


class CallContext:
    """A call while its handler runs. A handler gets it by a parameter with this annotation. Thread-safe.

    ::

        @server.handle_requests("Search")
        def search(request: Query, call: CallContext) -> list[Hit]:
            hits = []
            while not call.cancelled and len(hits) < request.count:
                hits += look_further(timeout=call.remaining())
            return hits

    Attributes:
        command: the protocol's command that was called; empty for its request handler.
        call_id: idempotency key of a call with ``retry=True``: random bytes, the same each time that the caller sends
            the call. Empty for other calls.
        request_id: name of the call in logs and errors of both sides, also in what the handler's tasks log meanwhile.
            The caller may have chosen it, so it proves nothing; it is short and safe to print. Empty if the daemon is
            older.
        deadline: time at which the caller stops waiting, in seconds of ``time.monotonic()``.
        cancelled: True once the caller has cancelled the call or the deadline has passed. ``async`` handlers are also
            cancelled; a handler that runs in a thread has to check this.
    """

    __slots__ = ("_cancelled", "call_id", "command", "deadline", "request_id")

    def __init__(self, command: str, call_id: bytes, deadline: float, request_id: str = "") -> None:
        self.command = command
        self.call_id = call_id
        self.deadline = deadline
        self.request_id = request_id
        self._cancelled = False

    def remaining(self) -> float:
        """Return the seconds until the deadline, at least 0: the timeout for calls that the handler itself makes."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """True once the caller has cancelled the call or the deadline has passed."""
        return self._cancelled or self.deadline <= time.monotonic()

    def cancel(self) -> None:
        """Mark the call as cancelled. For the dispatcher, not for handlers."""
        self._cancelled = True
