"""Conformance checks: functions that call the protocol ``Conformance`` and compare what comes back.

Run them against another implementation of serving or calling: a server in another language, another transport, or a
daemon of another version.

::

    client = ProtocolClient(Client(), "alice", peer.id52, "Conformance")  # served by the implementation to check
    await check_requests(client)
    await check_errors(client)
    await check_streams(client)

A check raises ``AssertionError`` that says what is wrong. Checks may run again, on the same binding too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

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
from ..limits import MAX_PAYLOAD, RESET_FAILED
from ..session.session import Session
from .conformance_protocol import Add, Excess, Left, Repeat, Repeated, Shout, Talk, Who
from .protocol_client import ProtocolClient

_TIMEOUT: Final = 15.0
"""Seconds until an expected event counts as missing."""
_LARGE: Final = 1_000_000
"""Bytes of a payload that travels on a stream of its own."""
_MORE_THAN_FITS: Final = 12 * 1024 * 1024
"""Bytes of a session that fit into no chain of windows while the handler does not read."""
_RESET_CODE: Final = 7

Error = TypeVar("Error", bound=Exception)

# ── requests ─────────────────────────────────────────────────────────────────────────────────────


async def check_requests(client: ProtocolClient) -> None:
    """Check requests and replies, commands, the context of a call, concurrency, deadlines and cancellation.

    Args:
        client: calls a binding of ``Conformance``.

    Raises:
        AssertionError: something does not conform; the message says what.
    """
    await _check_values(client)
    await _check_contexts(client)
    await _check_concurrency(client)
    for command in ("hold", "hold.in-thread"):
        await _check_deadline(client, command)
        await _check_cancellation(client, command)


async def _check_values(client: ProtocolClient) -> None:
    for value in (None, True, -1, 2**63, 1.5, "ü", b"\0\xff", [1, [2]], {"a": {"b": None}}, "x" * _LARGE):
        _check_equal("the reply to a request", await client.call(value), value)
    reply = await client.call(Repeat("x", 2), command="typed.repeat", returns=Repeated)
    _check_equal("a typed reply", reply, Repeated(["x", "x"]))
    _check_equal("a request of a union", await client.call(Add([1, 2]), command="typed.either"), 3)
    _check_equal("a request of a union", await client.call(Shout("x"), command="typed.either"), "X")
    with _expect(BadReply, "a reply that does not fit what the caller expects"):
        await client.call("text", returns=int)


async def _check_contexts(client: ProtocolClient) -> None:
    who = await client.call(command="who", returns=Who)
    _check(who.path in ("local", "direct", "relayed", "unknown"), f"the caller's path is {who.path!r}")
    _check_equal("the instance", who.instance, client.instance)
    _check(len(who.key) == 52, f"the caller's key is {who.key!r}")
    for command in ("left", "left.in-thread"):
        left = await client.call(command=command, timeout=_TIMEOUT, returns=Left)
        _check(0 < left.seconds <= _TIMEOUT, f"of {_TIMEOUT} s the handler was told {left.seconds} s")
        _check_equal("the command that the handler is told", left.command, command)
        _check_equal("the call id of a call without retries", left.call_id, b"")
        named = await client.call(command=command, timeout=_TIMEOUT, returns=Left, request_id="conformance.1")
        _check_equal("the request id that the handler is told", named.request_id, "conformance.1")
        _check(left.request_id not in ("", named.request_id), "a call without a request id was given none")


async def _check_concurrency(client: ProtocolClient) -> None:
    """Check that 20 calls run at once: none of them is answered before the last one has come."""
    place = f"place {time.monotonic_ns()}"
    calls = [client.call((place, number, 20), command="meet", returns=int, timeout=_TIMEOUT) for number in range(20)]
    _check_equal("replies of calls that were made at once", await asyncio.gather(*calls), list(range(20)))


async def _check_deadline(client: ProtocolClient, command: str) -> None:
    name = f"deadline of {command} {time.monotonic_ns()}"
    with _expect(DeadlineExceeded, "a call whose deadline has passed") as failed:
        await client.call(name, command=command, timeout=0.3)
    _check_equal("the seconds in the error", failed().seconds, 0.3)
    await _wait_until_seen(client, f"{name} cancelled", f"the deadline cancels the handler of {command!r}")


async def _check_cancellation(client: ProtocolClient, command: str) -> None:
    name = f"caller of {command} {time.monotonic_ns()}"
    call = asyncio.ensure_future(client.call(name, command=command, timeout=4 * _TIMEOUT))
    await _wait_until_seen(client, f"{name} begun", f"the handler of {command!r} is called")
    call.cancel()
    await _wait_until_seen(client, f"{name} cancelled", f"the caller cancels the handler of {command!r}")


# ── errors ───────────────────────────────────────────────────────────────────────────────────────


async def check_errors(client: ProtocolClient) -> None:
    """Check every error that the callee causes: its class, its fields, and that it tells the caller nothing else.

    Args:
        client: calls a binding of ``Conformance``.

    Raises:
        AssertionError: something does not conform; the message says what.
    """
    for command in ("refuse", "refuse.in-thread"):
        with _expect(ApplicationError, "an application error of a handler") as rejected:
            await client.call(5, command=command)
        _check_equal("its kind", rejected().kind, "TooLong")
        _check_equal("its message", rejected().message, "5 are too many")
        _check_equal("its payload", rejected().payload_as(Excess), Excess(5, 3))
    with _expect(BadRequest, "a request with a wrong field") as unfit:
        await client.call({"text": "x", "times": "2"}, command="typed.repeat")
    _check("$.times" in unfit().reason, f"the field is not named: {unfit().reason}")
    with _expect(BadRequest, "a request without a field") as unfit:
        await client.call({"text": "x"}, command="typed.repeat")
    _check("times" in unfit().reason, f"the field is not named: {unfit().reason}")
    with _expect(CommandNotFound, "an unknown command") as missing:
        await client.call(command="typed.nothing")
    _check_equal("its fields", missing().fields(), {
        "peer": client.peer, "protocol": client.protocol, "command": "typed.nothing",
    })  # fmt: skip
    with _expect(InstanceNotFound, "an unknown instance"):
        await ProtocolClient(client.client, client.identity, client.peer, client.protocol, "nowhere").call()
    with _expect(HandlerFailed, "a handler that raises another exception") as crashed:
        await client.call("the secret", command="crash")
    _check_equal("its reason, the name of the class and no more", crashed().reason, "RuntimeError")
    with _expect(PeerUnknown, "an error of the system that a handler raises") as passed_on:
        await client.call("carol", command="fail")
    _check_equal("its field", passed_on().peer, "carol")
    with _expect(PayloadTooLarge, "a reply that is too large"):
        await client.call(MAX_PAYLOAD + 1, command="large")
    with _expect(HandlerFailed, "a reply that cannot be encoded"):
        await client.call(command="unfit")
    _check_equal("a call after all these errors", await client.call("still there"), "still there")


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


async def check_streams(client: ProtocolClient) -> None:
    """Check sessions: both directions and their ends, rejections, resets, and flow control.

    Args:
        client: opens sessions with a binding of ``Conformance``.

    Raises:
        AssertionError: something does not conform; the message says what.
    """
    await _check_echo(client)
    await _check_flow_control(client)
    await _check_rejections(client)
    await _check_resets(client)
    async with await client.connect(Talk("return")) as session:
        _check_equal("what a handler sends that returns at once", await session.read(), b"")
    async with await client.connect(Talk("who")) as session:
        key, _, path = (await _read_all(session)).decode().partition(" ")
    who = await client.call(command="who", returns=Who)
    _check_equal("key and path of a session's caller, against those of a call", (key, path), (who.key, who.path))


async def _check_echo(client: ProtocolClient) -> None:
    sent = bytes(range(256)) * 4096
    async with await client.connect(Talk("echo")) as session:
        writing = asyncio.ensure_future(_write_all(session, sent))
        received = await _read_all(session)
        await writing
    _check(received == sent, f"of {len(sent)} bytes {len(received)} came back, or others than were sent")


async def _check_flow_control(client: ProtocolClient) -> None:
    async with await client.connect(Talk("count")) as session:
        writing = asyncio.ensure_future(_write_all(session, bytes(_MORE_THAN_FITS)))
        await _wait_until(lambda: _is_blocked(session), "the writer waits for a handler that does not read")
        _check(not writing.done(), "all bytes were written, although the handler does not read")
        await client.call(command="release")
        await writing
        _check_equal("the number of bytes that the handler has read", int(await _read_all(session)), _MORE_THAN_FITS)


async def _is_blocked(session: Session) -> bool:
    before = session.bytes_written
    await asyncio.sleep(0.05)
    return 0 < before == session.bytes_written


async def _check_rejections(client: ProtocolClient) -> None:
    with _expect(ApplicationError, "a handler that rejects a session") as rejected:
        await client.connect(Talk("refuse", 5))
    _check_equal("its kind and payload", (rejected().kind, rejected().payload_as(Excess)), ("TooLong", Excess(5, 3)))
    with _expect(BadRequest, "initial data that do not fit") as unfit:
        await client.connect({"do": "echo", "length": "x"})
    _check("$.length" in unfit().reason, f"the field is not named: {unfit().reason}")


async def _check_resets(client: ProtocolClient) -> None:
    for order, code in ((Talk("raise"), RESET_FAILED), (Talk("reset", _RESET_CODE), _RESET_CODE)):
        with _expect(StreamReset, f"a session of a handler that does {order.do!r}") as reset:
            async with await client.connect(order) as session:  # the reset may overtake the acceptance
                await _read_all(session)
            _check_equal("its code", reset().reset_code, code)
    before = await client.call(f"reset {_RESET_CODE}", command="seen", returns=int)
    session = await client.connect(Talk("watch"))
    session.reset(_RESET_CODE)
    await _wait_until_seen(client, f"reset {_RESET_CODE}", "the handler sees the caller's reset", before)


# ── assertions and waiting ───────────────────────────────────────────────────────────────────────


def _check(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _check_equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {str(found)[:200]!r} instead of {str(expected)[:200]!r}")


@contextmanager
def _expect(kind: type[Error], what: str) -> Iterator[Callable[[], Error]]:
    """Expect that the body raises this error. The yielded function returns it afterwards."""
    caught: list[Error] = []
    try:
        yield lambda: caught[0]
    except kind as error:
        caught.append(error)
    except (P2PError, ApplicationError) as error:
        raise AssertionError(f"{what}: {type(error).__name__} ({error}) instead of {kind.__name__}") from error
    if not caught:
        raise AssertionError(f"{what}: no error instead of {kind.__name__}")


async def _wait_until_seen(client: ProtocolClient, name: str, what: str, before: int = 0) -> None:
    async def seen() -> bool:
        return await client.call(name, command="seen", returns=int) > before

    await _wait_until(seen, what)


async def _wait_until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + _TIMEOUT
    while not await condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {_TIMEOUT:g} s: {what}")
        await asyncio.sleep(0.01)


async def _write_all(session: Session, data: bytes) -> None:
    await session.write(data)
    await session.send_eof()


async def _read_all(session: Session) -> bytes:
    return b"".join([chunk async for chunk in session])
