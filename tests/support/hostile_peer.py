"""Hostile peer that runs the exact steps of a test, on endpoints of its own on the raw binding.

It runs as a process of its own (``python -m tests.support.hostile_peer``). Its first line on stdin is an ``Order`` in
JSON; it prints a list of ``Account``. At the next line it runs the later steps and prints again. It keeps its
connections open until stdin is closed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import msgspec
from iroh.iroh_ffi import (
    BiStream,
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointId,
    EndpointOptions,
    IrohError,
    RecvStream,
    SendStream,
)
from nacl.signing import SigningKey

from fastn_p2p_actors.network.connections.quic_stream import QuicStream
from fastn_p2p_actors.network.transport.iroh_patches import install
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import FrameDecoder, encode_frame
from fastn_p2p_actors.network.wire.messages import ALPN, WIRE_VERSION
from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc.messages import Message
from fastn_p2p_client.limits import MAX_PAYLOAD
from tests.support.attackers import Loopback
from tests.support.processes import child

__all__ = [
    "HELLO",
    "SECRET",
    "Account",
    "AnyStep",
    "Bi",
    "Channel",
    "Session",
    "Talk",
    "Target",
    "Uni",
    "Until",
    "endpoint_of",
    "hostile_peer",
]

SECRET: Final = b"r" * 32
"""Transport key of the hostile peer, unless a test gives another."""
HELLO: Final = encode_frame(wire.Hello(WIRE_VERSION, b"hostile1", MAX_PAYLOAD, 100))
_DEADLINE: Final = 60.0


def endpoint_of(secret: bytes) -> bytes:
    """Return the public half of a transport key."""
    return bytes(SigningKey(secret).verify_key)


class Step(msgspec.Struct, tag=True, frozen=True):
    """Step of a talk."""


class Channel(Step, frozen=True):
    """Write to the call channel, which the first such step opens."""

    data: bytes
    times: int = 1


class Uni(Step, frozen=True):
    """Write to a new unidirectional stream. It stays open unless ``finish`` is set."""

    data: bytes = b""
    finish: bool = False
    times: int = 1
    """Number of such streams."""
    repeat: int = 1
    """Number of times that the data is written to each."""


class Bi(Step, frozen=True):
    """Write to a new bidirectional stream, and read from it. It stays open unless ``end`` is set."""

    data: bytes = b"\0"
    times: int = 1
    """Number of such streams."""
    session: int | None = None
    """Number of the session that the streams are announced for."""
    end: Literal["", "finish", "reset", "drop"] = ""
    """``reset``: end both directions with code 9. ``drop``: drop the last reference to the stream."""
    more: bytes = b""
    """Data that is written to each stream, again and again, until the write fails."""
    listen: bool = True
    """True if the stream is read."""


class Session(Step, frozen=True):
    """Write to the call channel, and run a step on the session's stream once the session ``number`` is accepted."""

    number: int
    data: bytes
    then: Bi | None = Bi()
    """Step for the stream, announced for this session in any case. None: no stream is opened."""


class Until(Step, frozen=True):
    """Wait until ``frames`` frames besides the hello have arrived in all, or until the daemon has closed."""

    frames: int = 0
    closed: bool = False


AnyStep: TypeAlias = Channel | Uni | Bi | Session | Until


class Talk(msgspec.Struct):
    """Steps of one connection."""

    steps: list[AnyStep]
    secret: bytes = SECRET
    """Transport key of the endpoint that opens the connection."""
    alpn: bytes = ALPN
    listen: bool = True
    """True if the call channel is read."""
    later: list[AnyStep] = []
    """Steps that run when the test calls ``go_on``."""


class Target(msgspec.Struct):
    """Endpoint of the daemon that is attacked."""

    endpoint: bytes
    addresses: list[str]


class Order(msgspec.Struct):
    """Order to the process of the hostile peer."""

    target: Target
    talks: list[Talk]


class Account(msgspec.Struct):
    """Outcome of one connection."""

    answers: list[list[Any]] = []
    """Tag and fields of each frame that arrived, without those of the connection itself (hello, ping, pause)."""
    codes: list[str] = []
    """Codes of the error replies among them."""
    received: int = 0
    """Bytes that arrived on bidirectional streams, and with the acceptance of a session."""
    ends: list[str] = []
    """Ends of the streams that have ended."""
    closed: str = ""
    """Reason for which the daemon closed the connection, or for which there was none."""
    stuck: str = ""
    """Step that did not end in time."""


class Running(list[Account]):
    """Outcomes of the talks, while their connections are still open."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self._process = process

    def send(self, line: bytes) -> None:
        """Send one line, and read the accounts that the process prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        self[:] = msgspec.json.decode(self._process.stdout.readline(), type=list[Account])

    def go_on(self) -> None:
        """Run the later steps."""
        self.send(b"")


@contextmanager
def hostile_peer(target: Target, talks: Sequence[Talk]) -> Iterator[Running]:
    """Run all talks concurrently. Inside the block they are complete, and their connections are still open."""
    program = [sys.executable, "-m", "tests.support.hostile_peer"]
    with child(subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        try:
            assert process.stdin is not None
            running = Running(process)
            running.send(msgspec.json.encode(Order(target, list(talks))))
            yield running
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


# ── the process ──────────────────────────────────────────────────────────────────────────────────


class _HostilePeer:
    """Connection of the hostile peer."""

    def __init__(self, talk: Talk) -> None:
        self.account = Account()
        self._talk = talk
        self._connection: Connection | None = None
        self._channel: SendStream | None = None
        self._changed = asyncio.Event()
        self._kept: list[SendStream | BiStream] = []
        self._sessions: dict[int, Session] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, endpoint: Endpoint, target: Target) -> None:
        address = EndpointAddr(EndpointId.from_bytes(target.endpoint), None, target.addresses)
        try:
            async with asyncio.timeout(_DEADLINE):
                connection = await endpoint.connect(address, self._talk.alpn)
        except (IrohError, TimeoutError) as error:
            self.account.closed = f"no connection: {error}"
            return
        self._connection = connection
        self._tasks.append(asyncio.create_task(self._watch(connection)))
        await self.do(self._talk.steps)

    async def do(self, steps: list[AnyStep]) -> None:
        if self._connection is None:
            return
        for number, step in enumerate(steps):
            try:
                async with asyncio.timeout(_DEADLINE):
                    await self._do(step, self._connection)
            except TimeoutError:
                self.account.stuck = f"{number}: {type(step).__name__}"
                return
            except IrohError:
                continue  # closed by now; a later Until checks that

    async def _do(self, step: AnyStep, connection: Connection) -> None:
        if isinstance(step, Channel):
            if self._channel is None:
                stream = await connection.open_bi()
                self._channel = stream.send()
                if self._talk.listen:
                    self._tasks.append(asyncio.create_task(self._read(stream.recv())))
            await self._channel.write_all(step.data * step.times)
        elif isinstance(step, Session):
            assert self._channel is not None
            self._sessions[step.number] = step
            await self._channel.write_all(step.data)
        elif isinstance(step, Uni):
            for _ in range(step.times):
                single = await connection.open_uni()
                self._kept.append(single)
                await single.write_all(step.data * step.repeat)
                if step.finish:
                    await single.finish()
        elif isinstance(step, Bi):
            for _ in range(step.times):
                await self._converse(step, await connection.open_bi(), step.session)
        else:
            while not (self.account.closed if step.closed else len(self.account.answers) >= step.frames):
                if self.account.closed:
                    return
                self._changed.clear()
                await self._changed.wait()

    async def _converse(self, step: Bi, stream: BiStream, session: int | None) -> None:
        sending, receiving = stream.send(), stream.recv()
        if session is not None and self._channel is not None:
            number = (await QuicStream.of(stream)).number
            await self._channel.write_all(encode_frame(wire.SessionStream(session, number)))
        if step.data:
            await sending.write_all(step.data)
        if step.end == "drop":
            return
        if step.end == "finish":
            await sending.finish()
        elif step.end == "reset":
            await sending.reset(9)
            await receiving.stop(9)
            return
        self._kept.append(stream)
        if step.more:
            self._tasks.append(asyncio.create_task(self._pour(step.more, sending)))
        if step.listen:
            self._tasks.append(asyncio.create_task(self._read_session(receiving)))

    async def _read_session(self, receiving: RecvStream) -> None:
        try:
            while data := await receiving.read(65536):
                self.account.received += len(data)
            self.account.ends.append("finished")
        except IrohError as error:
            self.account.ends.append(error.message())

    async def _pour(self, data: bytes, stream: SendStream) -> None:
        try:
            while True:
                await stream.write_all(data)
        except IrohError:
            return  # the daemon accepts no more

    async def _read(self, stream: RecvStream) -> None:
        reader = FrameDecoder()
        try:
            while data := await stream.read(65536):
                for message, payload in reader.feed(data):
                    self._on_message(message)
                    if isinstance(message, wire.SessionAccepted):
                        self.account.received += len(payload)
                        await self._go_on_with(message.id)
        except (IrohError, P2PError):
            return

    async def _go_on_with(self, number: int) -> None:
        session = self._sessions.get(number)
        if session is not None and session.then is not None and self._connection is not None:
            await self._converse(session.then, await self._connection.open_bi(), number)

    def _on_message(self, message: wire.WireMessage) -> None:
        if not isinstance(message, wire.Hello | wire.Ping | wire.Pause | wire.Resume):
            self.account.answers.append(_plain(message))
            if isinstance(message, wire.ErrorReply):
                self.account.codes.append(message.code)
            self._changed.set()

    async def _watch(self, connection: Connection) -> None:
        self.account.closed = str(await connection.closed()) or "closed"
        self._changed.set()


def _plain(message: Message) -> list[Any]:
    """Return the message as the array that is sent, with bytes in hexadecimal."""
    fields: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    return [field.hex() if isinstance(field, bytes) else field for field in fields]


async def _main() -> None:
    loop = asyncio.get_running_loop()
    install(loop)
    order = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.buffer.readline), type=Order)
    endpoints = {
        secret: await Endpoint.bind(EndpointOptions(preset=Loopback(), secret_key=secret, alpns=[b"hostile"]))
        for secret in {talk.secret for talk in order.talks}
    }
    peers = [_HostilePeer(talk) for talk in order.talks]
    await asyncio.gather(
        *(each.run(endpoints[talk.secret], order.target) for each, talk in zip(peers, order.talks, strict=True))
    )
    while True:
        sys.stdout.buffer.write(msgspec.json.encode([each.account for each in peers]) + b"\n")
        sys.stdout.buffer.flush()
        if not await loop.run_in_executor(None, sys.stdin.buffer.readline):
            break
        await asyncio.gather(*(each.do(talk.later) for each, talk in zip(peers, order.talks, strict=True)))
    await asyncio.gather(*(endpoint.close() for endpoint in endpoints.values()))


if __name__ == "__main__":
    asyncio.run(_main())
