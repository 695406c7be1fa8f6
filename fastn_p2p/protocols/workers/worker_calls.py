"""Calls on their way to workers and back, and the workers that have them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from fastn_p2p_client.ipc.messages import encode

if TYPE_CHECKING:
    from fastn_p2p_client.claims.call_claims import Outcome
    from fastn_p2p_client.serving.forwarded_call import ForwardedCall
    from fastn_p2p_client.workers.parts import PayloadAssembly


class BridgedCall:
    """Call that waits for a worker, or for its answer.

    Attributes:
        id: random name of the present offer; empty while it waits for a worker.
        payload: the request.
        is_whole: the present offer has all of it.
        outcome: header and payload of the answer.
        worker: the worker that it was offered to.
        is_accepted: the worker has said that it has begun.
        ticks: ticks since it waits for what comes next.
        may_repeat: whether it may be executed again.
        unknown: pongs in a row by which the worker does not have it.
        batch: number of the NATS message with its offer.
    """

    __slots__ = (
        "_call",
        "answer_header",
        "assembly",
        "batch",
        "id",
        "is_accepted",
        "is_whole",
        "may_repeat",
        "outcome",
        "payload",
        "ticks",
        "unknown",
        "worker",
    )

    def __init__(self, call: ForwardedCall, outcome: asyncio.Future[Outcome], *, may_repeat: bool) -> None:
        """
        Args:
            call: the call.
            outcome: the future for the answer.
            may_repeat: it may be executed again, if it has a call id.
        """
        self._call = call
        self.payload = call.payload
        self.outcome = outcome
        self.id = b""
        self.worker: KnownWorker | None = None
        self.is_accepted = False
        self.is_whole = True
        self.batch = 0
        self.ticks = 0
        self.unknown = 0
        self.answer_header = b""
        self.assembly: PayloadAssembly | None = None
        self.may_repeat = may_repeat and self.may_wait

    @property
    def may_wait(self) -> bool:
        """True if it waits for workers until its deadline: it has a call id."""
        return bool(self._call.message.call_id)

    def remaining(self) -> float:
        """Return the seconds until the caller stops waiting."""
        return self._call.remaining()

    def header(self) -> bytes:
        """Return the ``DeliverCall`` with the time that is left."""
        call = self._call
        left = max(1, int(call.remaining() * 1000))
        return encode(replace(call.message, deadline_ms=left, attempt=0, request_id=call.request_id))

    def begin_again(self) -> None:
        """Have it wait for a worker again."""
        self.id = b""
        self.worker = None
        self.is_accepted = False
        self.ticks = self.unknown = 0
        self.answer_header = b""
        self.assembly = None


class KnownWorker:
    """Worker that is ready.

    Attributes:
        name: its random name.
        label: program and machine, for logs and errors.
        subject: for messages to it.
        reply_subject: for messages from it.
        capacity: calls that it takes at once; 0 for no limit.
        serves_sessions: whether it takes sessions.
        sessions: how many it has, as it says.
        routed: how many are on their way to it.
        calls: what it was offered, by id.
        missed: ticks since it was heard of, while it has calls.
        is_slow: it has not accepted an offer in time, or the server cannot reach it.
        is_draining: it takes no more calls.
        last_offer: number of the last offer that it got.
    """

    __slots__ = (
        "calls",
        "capacity",
        "is_draining",
        "is_slow",
        "label",
        "last_offer",
        "missed",
        "name",
        "reply_subject",
        "routed",
        "serves_sessions",
        "sessions",
        "subject",
    )

    def __init__(self, name: str, label: str, capacity: int, subject: str, reply_subject: str) -> None:
        self.name = name
        self.subject = subject
        self.reply_subject = reply_subject
        self.label = label
        self.capacity = capacity
        self.calls: dict[bytes, BridgedCall] = {}
        self.missed = 0
        self.is_slow = False
        self.is_draining = False
        self.last_offer = 0
        self.serves_sessions = False
        self.sessions = self.routed = 0

    @property
    def has_room(self) -> bool:
        """True if it takes one more call."""
        return not self.is_draining and (self.capacity == 0 or len(self.calls) < self.capacity)

    def is_better_than(self, other: KnownWorker) -> bool:
        """Return whether a call is better given to this one: it is quick, has fewer calls, or has waited for longer."""
        return (self.is_slow, len(self.calls), self.last_offer) < (other.is_slow, len(other.calls), other.last_offer)
