"""What a handler can know about the call that it answers, besides the request and who asks."""

from __future__ import annotations

import time

__all__ = ["CallContext"]


class CallContext:
    """One call, while its handler runs; given to handlers that take one. Any thread may look at it.

    ::

        @server.handle_requests("Search")
        def search(request: Query, call: CallContext) -> list[Hit]:
            hits = []
            while not call.cancelled and len(hits) < request.count:
                hits += look_further(timeout=call.remaining())
            return hits

    Attributes:
        command: which of the protocol's commands was called; empty for the request handler without one.
        call_id: random bytes, the same each time that the caller sends this call again; empty for a call that is never
            sent again.
        deadline: when nobody waits any more, on the clock of ``time.monotonic()``.
        cancelled: nobody waits any more: the caller has given up, or the deadline has passed. Handlers that are
            ``async`` are cancelled besides; one that runs in a thread must look.
    """

    __slots__ = ("_cancelled", "call_id", "command", "deadline")

    def __init__(self, command: str, call_id: bytes, deadline: float) -> None:
        self.command = command
        self.call_id = call_id
        self.deadline = deadline
        self._cancelled = False

    def remaining(self) -> float:
        """Seconds until the deadline, 0 when it has passed: what is left for calls that the handler makes itself."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        return self._cancelled or self.deadline <= time.monotonic()

    def cancel(self) -> None:
        """Said by whoever runs the handler: nobody waits any more."""
        self._cancelled = True
