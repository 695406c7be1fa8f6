"""What every way of serving must do alike: a protocol made for it, and checks of it, from the caller's side.

::

    async with ... as contact:  # Conformance, served by whatever is to be checked
        await check_requests(contact)
        await check_errors(contact)
        await check_streams(contact)

Each check raises ``AssertionError`` that says what is wrong. They may run again, on the same binding too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar

import msgspec

from ..errors import (
    ApplicationError,
    BadReply,
    BadRequest,
    CommandNotFound,
    DeadlineExceeded,
    HandlerFailed,
    InstanceNotFound,
    P2PError,
    PayloadTooLarge,
    PeerUnknown,
    StreamReset,
)
from ..limits import (
    MAX_PAYLOAD,
    RESET_FAILED,
)
from ..protocol import (
    BindingContext,
    CallContext,
    Peer,
    Protocol,
    request,
    stream,
)
from ..session.session import Session
from .protocol_client import ProtocolClient

__all__ = ["Conformance", "check_errors", "check_requests", "check_streams"]

_PATIENCE: Final = 15.0
"""Seconds for what happens soon."""
_LARGE: Final = 1_000_000
"""Bytes of a payload that travels apart from others."""
_MORE_THAN_FITS: Final = 12 * 1024 * 1024
"""Bytes of a session that no chain of windows holds while nobody reads."""
_CODE: Final = 7

Error = TypeVar("Error", bound=Exception)


class Repeat(msgspec.Struct):
    text: str
    times: int


class Repeated(msgspec.Struct):
    texts: list[str]


class Add(msgspec.Struct, tag=True):
    numbers: list[int]


class Shout(msgspec.Struct, tag=True):
    text: str


class Excess(msgspec.Struct):
    length: int
    limit: int


class Who(msgspec.Struct):
    key: str
    path: str
    identity: str
    instance: str


class Left(msgspec.Struct):
    seconds: float
    command: str
    call_id: bytes


class Talk(msgspec.Struct):
    do: Literal["echo", "count", "refuse", "raise", "reset", "watch", "return", "who"]
    length: int = 0


class Conformance(Protocol):
    """The protocol that the checks call. Public."""

    public = True

    def __init__(self, context: BindingContext) -> None:
        super().__init__(context)
        self.seen: Counter[str] = Counter()
        self.released = asyncio.Event()
        self.met: dict[str, tuple[set[int], asyncio.Event]] = {}

    @request
    async def echo(self, value: Any) -> Any:
        """The same again."""
        return value

    @request("typed.repeat")
    async def repeat(self, order: Repeat) -> Repeated:
        """A typed request and a typed reply."""
        return Repeated([order.text] * order.times)

    @request("typed.either")
    async def either(self, order: Add | Shout) -> int | str:
        """A request of two kinds."""
        return sum(order.numbers) if isinstance(order, Add) else order.text.upper()

    @request("who")
    async def who(self, _: None, peer: Peer, context: BindingContext) -> Who:
        """Who calls whom."""
        return Who(peer.key.id52, peer.path, context.identity, context.instance)

    @request("left")
    async def left(self, _: None, call: CallContext) -> Left:
        """What a handler knows of its call."""
        return Left(call.remaining(), call.command, call.call_id)

    @request("left.in-thread")
    def left_in_thread(self, _: None, call: CallContext) -> Left:
        """The same for one that is not ``async``."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return Left(call.remaining(), call.command, call.call_id)
        raise ApplicationError("NoThread", "a handler that is not async ran in the event loop")

    @request("meet")
    async def meet(self, order: tuple[str, int, int]) -> int:
        """Answers once so many have come to the same place."""
        place, number, count = order
        there, complete = self.met.setdefault(place, (set(), asyncio.Event()))
        there.add(number)
        if len(there) == count:
            complete.set()
        await complete.wait()
        return number

    @request("hold")
    async def hold(self, name: str) -> None:
        """Never answers, and notes how it ends."""
        self.seen[f"{name} begun"] += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.seen[f"{name} cancelled"] += 1

    @request("hold.in-thread")
    def hold_in_thread(self, name: str, call: CallContext) -> None:
        """The same for one that is not ``async``, which has to look."""
        self.seen[f"{name} begun"] += 1
        enough = time.monotonic() + 2 * _PATIENCE
        while not call.cancelled and time.monotonic() < enough:
            threading.Event().wait(0.005)
        if call.cancelled:
            self.seen[f"{name} cancelled"] += 1

    @request("seen")
    async def what_was_seen(self, name: str) -> int:
        """How often something was noted."""
        return self.seen[name]

    @request("release")
    async def release(self, _: None) -> None:
        """Lets "count" begin to read."""
        self.released.set()

    @request("refuse")
    async def refuse(self, length: int) -> None:
        """Says no."""
        raise ApplicationError("TooLong", f"{length} are too many", Excess(length, 3))

    @request("refuse.in-thread")
    def refuse_in_thread(self, length: int) -> None:
        """The same for one that is not ``async``."""
        raise ApplicationError("TooLong", f"{length} are too many", Excess(length, 3))

    @request("crash")
    async def crash(self, secret: str) -> None:
        """Raises what nobody has declared."""
        raise RuntimeError(secret)

    @request("fail")
    async def fail(self, who: str) -> None:
        """Raises an error of the system."""
        raise PeerUnknown(peer=who)

    @request("large")
    async def large(self, size: int) -> bytes:
        """So many bytes."""
        return bytes(size)

    @request("unfit")
    async def unfit(self, _: None) -> object:
        """Returns what cannot be encoded."""
        return object()

    @stream
    async def talk(self, session: Session, order: Talk) -> None:
        """A session, as it is ordered."""
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


# ── requests ─────────────────────────────────────────────────────────────────────────────────────


async def check_requests(contact: ProtocolClient) -> None:
    """Requests and replies, commands, what handlers know of their call, and how they learn that it is over."""
    await _check_values(contact)
    await _check_what_handlers_know(contact)
    await _check_many_at_once(contact)
    for command in ("hold", "hold.in-thread"):
        await _check_deadline(contact, command)
        await _check_giving_up(contact, command)


async def _check_values(contact: ProtocolClient) -> None:
    for value in (None, True, -1, 2**63, 1.5, "ü", b"\0\xff", [1, [2]], {"a": {"b": None}}, "x" * _LARGE):
        _same("the reply to a request", await contact.call(value), value)
    reply = await contact.call(Repeat("x", 2), command="typed.repeat", returns=Repeated)
    _same("a typed reply", reply, Repeated(["x", "x"]))
    _same("a request of a union", await contact.call(Add([1, 2]), command="typed.either"), 3)
    _same("a request of a union", await contact.call(Shout("x"), command="typed.either"), "X")
    with _raising(BadReply, "a reply that does not fit what the caller expects"):
        await contact.call("text", returns=int)


async def _check_what_handlers_know(contact: ProtocolClient) -> None:
    who = await contact.call(command="who", returns=Who)
    _is(who.path in ("local", "direct", "relayed", "unknown"), f"the caller's path is {who.path!r}")
    _same("the instance", who.instance, contact.instance)
    _is(len(who.key) == 52, f"the caller's key is {who.key!r}")
    for command in ("left", "left.in-thread"):
        left = await contact.call(command=command, timeout=_PATIENCE, returns=Left)
        _is(0 < left.seconds <= _PATIENCE, f"of {_PATIENCE} s the handler was told {left.seconds} s")
        _same("the command that the handler is told", left.command, command)
        _same("the call id of a call that is never sent again", left.call_id, b"")


async def _check_many_at_once(contact: ProtocolClient) -> None:
    """None of them is answered before the last one has come."""
    place = f"place {time.monotonic_ns()}"
    calls = [contact.call((place, number, 20), command="meet", returns=int, timeout=_PATIENCE) for number in range(20)]
    _same("replies of calls that were made at once", await asyncio.gather(*calls), list(range(20)))


async def _check_deadline(contact: ProtocolClient, command: str) -> None:
    name = f"deadline of {command} {time.monotonic_ns()}"
    with _raising(DeadlineExceeded, "a call of which the deadline has passed") as failed:
        await contact.call(name, command=command, timeout=0.3)
    _same("the seconds in the error", failed().seconds, 0.3)
    await _until_seen(contact, f"{name} cancelled", f"the handler of {command!r} is told that the deadline has passed")


async def _check_giving_up(contact: ProtocolClient, command: str) -> None:
    name = f"caller of {command} {time.monotonic_ns()}"
    call = asyncio.ensure_future(contact.call(name, command=command, timeout=4 * _PATIENCE))
    await _until_seen(contact, f"{name} begun", f"the handler of {command!r} is called")
    call.cancel()
    await _until_seen(contact, f"{name} cancelled", f"the handler of {command!r} is told that the caller has given up")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────


async def check_errors(contact: ProtocolClient) -> None:
    """Each way in which a call fails at whoever serves: its class, its fields, and that nothing else is told."""
    for command in ("refuse", "refuse.in-thread"):
        with _raising(ApplicationError, "what a handler says on purpose") as said:
            await contact.call(5, command=command)
        _same("its kind", said().kind, "TooLong")
        _same("its message", said().message, "5 are too many")
        _same("its payload", said().payload_as(Excess), Excess(5, 3))
    with _raising(BadRequest, "a request with a wrong field") as unfit:
        await contact.call({"text": "x", "times": "2"}, command="typed.repeat")
    _is("$.times" in unfit().reason, f"the field is not named: {unfit().reason}")
    with _raising(BadRequest, "a request without a field") as unfit:
        await contact.call({"text": "x"}, command="typed.repeat")
    _is("times" in unfit().reason, f"the field is not named: {unfit().reason}")
    with _raising(CommandNotFound, "a command that there is not") as missing:
        await contact.call(command="typed.nothing")
    _same("its fields", missing().fields(), {
        "peer": contact.peer, "protocol": contact.protocol, "command": "typed.nothing",
    })  # fmt: skip
    with _raising(InstanceNotFound, "an instance that there is not"):
        await ProtocolClient(contact.client, contact.identity, contact.peer, contact.protocol, "nowhere").call()
    with _raising(HandlerFailed, "a handler that raises what it has not declared") as crashed:
        await contact.call("the secret", command="crash")
    _same("its reason, the name of the class and no more", crashed().reason, "RuntimeError")
    with _raising(PeerUnknown, "an error of the system that a handler raises") as passed_on:
        await contact.call("carol", command="fail")
    _same("its field", passed_on().peer, "carol")
    with _raising(PayloadTooLarge, "a reply that is too large"):
        await contact.call(MAX_PAYLOAD + 1, command="large")
    with _raising(HandlerFailed, "a reply that cannot be encoded"):
        await contact.call(command="unfit")
    _same("a call after all that", await contact.call("still there"), "still there")


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


async def check_streams(contact: ProtocolClient) -> None:
    """Sessions: both directions and their ends, refusals, resets either way, and slow readers who stop the writer."""
    await _check_echo(contact)
    await _check_slow_reader(contact)
    await _check_refusals(contact)
    await _check_resets(contact)
    async with await contact.connect(Talk("return")) as session:
        _same("what comes of a handler that returns at once", await session.read(), b"")
    async with await contact.connect(Talk("who")) as session:
        key, _, path = (await _all(session)).decode().partition(" ")
    who = await contact.call(command="who", returns=Who)
    _same("who opens a session, and how, against who calls", (key, path), (who.key, who.path))


async def _check_echo(contact: ProtocolClient) -> None:
    sent = bytes(range(256)) * 4096
    async with await contact.connect(Talk("echo")) as session:
        writing = asyncio.ensure_future(_write_all(session, sent))
        received = await _all(session)
        await writing
    _is(received == sent, f"of {len(sent)} bytes {len(received)} came back, or others than were sent")


async def _check_slow_reader(contact: ProtocolClient) -> None:
    async with await contact.connect(Talk("count")) as session:
        writing = asyncio.ensure_future(_write_all(session, bytes(_MORE_THAN_FITS)))
        await _until(lambda: _is_stuck(session), "the writer waits for a handler that does not read")
        _is(not writing.done(), "everything was taken, although nobody reads it")
        await contact.call(command="release")
        await writing
        _same("the bytes that have come in the end", int(await _all(session)), _MORE_THAN_FITS)


async def _is_stuck(session: Session) -> bool:
    before = session.bytes_written
    await asyncio.sleep(0.05)
    return 0 < before == session.bytes_written


async def _check_refusals(contact: ProtocolClient) -> None:
    with _raising(ApplicationError, "a handler that says no to a session") as said:
        await contact.connect(Talk("refuse", 5))
    _same("its kind and payload", (said().kind, said().payload_as(Excess)), ("TooLong", Excess(5, 3)))
    with _raising(BadRequest, "initial data that do not fit") as unfit:
        await contact.connect({"do": "echo", "length": "x"})
    _is("$.length" in unfit().reason, f"the field is not named: {unfit().reason}")


async def _check_resets(contact: ProtocolClient) -> None:
    for order, code in ((Talk("raise"), RESET_FAILED), (Talk("reset", _CODE), _CODE)):
        with _raising(StreamReset, f"a session of a handler that does {order.do!r}") as reset:
            async with await contact.connect(order) as session:  # a reset may overtake the word that it stands
                await _all(session)
            _same("its code", reset().reset_code, code)
    before = await contact.call(f"reset {_CODE}", command="seen", returns=int)
    session = await contact.connect(Talk("watch"))
    session.reset(_CODE)
    await _until_seen(contact, f"reset {_CODE}", "the handler is told that its caller has reset the session", before)


# ── what they are made of ────────────────────────────────────────────────────────────────────────


def _is(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {str(found)[:200]!r} instead of {str(expected)[:200]!r}")


@contextmanager
def _raising(kind: type[Error], what: str) -> Iterator[Callable[[], Error]]:
    """Inside, this error is raised; it can be looked at afterwards."""
    caught: list[Error] = []
    try:
        yield lambda: caught[0]
    except kind as error:
        caught.append(error)
    except (P2PError, ApplicationError) as error:
        raise AssertionError(f"{what}: {type(error).__name__} ({error}) instead of {kind.__name__}") from error
    if not caught:
        raise AssertionError(f"{what}: no error instead of {kind.__name__}")


async def _until_seen(contact: ProtocolClient, name: str, what: str, before: int = 0) -> None:
    async def seen() -> bool:
        return await contact.call(name, command="seen", returns=int) > before

    await _until(seen, what)


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not await condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {_PATIENCE:g} s: {what}")
        await asyncio.sleep(0.01)


async def _write_all(session: Session, data: bytes) -> None:
    await session.write(data)
    await session.send_eof()


async def _all(session: Session) -> bytes:
    return b"".join([chunk async for chunk in session])
