"""Protocol that the conformance checks call, with the messages of its requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any, Final, Literal

import msgspec

from ..errors import ApplicationError, PeerUnknown, StreamReset
from ..protocol import BindingContext, CallContext, Peer, Protocol, request, stream
from ..session.session import Session

_LONGEST_HOLD: Final = 30.0
"""Seconds after which a handler in a thread ends that nobody cancels."""


class Repeat(msgspec.Struct):
    """Request of ``typed.repeat``."""

    text: str
    times: int


class Repeated(msgspec.Struct):
    """Reply of ``typed.repeat``."""

    texts: list[str]


class Add(msgspec.Struct, tag=True):
    """Request of ``typed.either``, answered with the sum."""

    numbers: list[int]


class Shout(msgspec.Struct, tag=True):
    """Request of ``typed.either``, answered with the text in upper case."""

    text: str


class Excess(msgspec.Struct):
    """Payload of the application error ``TooLong``."""

    length: int
    limit: int


class Who(msgspec.Struct):
    """Reply of ``who``: the caller as the handler sees it, and the binding."""

    key: str
    """ID52 of the caller."""
    path: str
    identity: str
    instance: str


class Left(msgspec.Struct):
    """Reply of ``left``: the call as the handler sees it."""

    seconds: float
    """Seconds until the deadline."""
    command: str
    call_id: bytes
    request_id: str


class Talk(msgspec.Struct):
    """Initial data of a session: what its handler is to do."""

    do: Literal["echo", "count", "refuse", "raise", "reset", "watch", "return", "who"]
    length: int = 0
    """Length that ``refuse`` rejects; code of ``reset``."""


class Conformance(Protocol):
    """Protocol that the checks call. Every peer may use it."""

    public = True

    def __init__(self, context: BindingContext) -> None:
        """
        Args:
            context: the binding that the instance stands for.
        """
        super().__init__(context)
        self.seen: Counter[str] = Counter()
        """Number of times that each event has happened, by its name."""
        self.released = asyncio.Event()
        """Set when ``count`` may read."""
        self.met: dict[str, tuple[set[int], asyncio.Event]] = {}
        """Numbers that have come to each place, and an event that is set when all have come."""

    @request
    async def echo(self, value: Any) -> Any:
        """Return the request."""
        return value

    @request("typed.repeat")
    async def repeat(self, order: Repeat) -> Repeated:
        """Return the text as many times as requested: a typed request with a typed reply."""
        return Repeated([order.text] * order.times)

    @request("typed.either")
    async def either(self, order: Add | Shout) -> int | str:
        """Add numbers, or return a text in upper case: a request that is a union."""
        return sum(order.numbers) if isinstance(order, Add) else order.text.upper()

    @request("who")
    async def who(self, _: None, peer: Peer, context: BindingContext) -> Who:
        """Return the caller and the binding."""
        return Who(peer.key.id52, peer.path, context.identity, context.instance)

    @request("left")
    async def left(self, _: None, call: CallContext) -> Left:
        """Return what the handler knows of its call."""
        return Left(call.remaining(), call.command, call.call_id, call.request_id)

    @request("left.in-thread")
    def left_in_thread(self, _: None, call: CallContext) -> Left:
        """Return what a handler that is not ``async`` knows of its call."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return Left(call.remaining(), call.command, call.call_id, call.request_id)
        raise ApplicationError("NoThread", "a handler that is not async ran in the event loop")

    @request("meet")
    async def meet(self, order: tuple[str, int, int]) -> int:
        """Return the number of the call, once as many calls as requested have come to the same place."""
        place, number, count = order
        there, complete = self.met.setdefault(place, (set(), asyncio.Event()))
        there.add(number)
        if len(there) == count:
            complete.set()
        await complete.wait()
        return number

    @request("hold")
    async def hold(self, name: str) -> None:
        """Never return; note the start and the cancellation."""
        self.seen[f"{name} begun"] += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.seen[f"{name} cancelled"] += 1

    @request("hold.in-thread")
    def hold_in_thread(self, name: str, call: CallContext) -> None:
        """Wait in a thread until ``call.cancelled``; note the start and the cancellation."""
        self.seen[f"{name} begun"] += 1
        enough = time.monotonic() + _LONGEST_HOLD
        while not call.cancelled and time.monotonic() < enough:
            threading.Event().wait(0.005)
        if call.cancelled:
            self.seen[f"{name} cancelled"] += 1

    @request("seen")
    async def what_was_seen(self, name: str) -> int:
        """Return how often an event has happened."""
        return self.seen[name]

    @request("release")
    async def release(self, _: None) -> None:
        """Let a session of ``count`` read."""
        self.released.set()

    @request("refuse")
    async def refuse(self, length: int) -> None:
        """Raise an application error."""
        raise ApplicationError("TooLong", f"{length} are too many", Excess(length, 3))

    @request("refuse.in-thread")
    def refuse_in_thread(self, length: int) -> None:
        """Raise an application error in a thread."""
        raise ApplicationError("TooLong", f"{length} are too many", Excess(length, 3))

    @request("crash")
    async def crash(self, secret: str) -> None:
        """Raise an exception that the caller must not see."""
        raise RuntimeError(secret)

    @request("fail")
    async def fail(self, who: str) -> None:
        """Raise an error of the system."""
        raise PeerUnknown(peer=who)

    @request("large")
    async def large(self, size: int) -> bytes:
        """Return as many bytes as requested."""
        return bytes(size)

    @request("unfit")
    async def unfit(self, _: None) -> object:
        """Return a value that cannot be encoded."""
        return object()

    @stream
    async def talk(self, session: Session, order: Talk) -> None:
        """Serve a session as its initial data say."""
        if order.do == "echo":
            async for chunk in session:
                await session.write(chunk)
        elif order.do == "count":
            self.released.clear()
            session.accept()
            await self.released.wait()
            await session.write(str(sum([len(chunk) async for chunk in session])).encode())
        elif order.do == "refuse":
            raise ApplicationError("TooLong", f"{order.length} are too many", Excess(order.length, 3))
        elif order.do == "raise":
            session.accept()
            raise RuntimeError("as ordered")
        elif order.do == "reset":
            session.accept()
            session.reset(order.length)
        elif order.do == "watch":
            try:
                session.accept()
                await session.read()
            except StreamReset as error:
                self.seen[f"reset {error.reset_code}"] += 1
        elif order.do == "who":
            await session.write(f"{session.peer.key.id52} {session.peer.path}".encode())
        else:
            session.accept()
