"""The local protocol with nothing but pyzmq and msgspec: a call, and a program that answers some.

    python examples/pyzmq_client.py call alice PEER Echo '{"message": "hi"}'
    python examples/pyzmq_client.py serve alice Shout 3

``serve`` answers so many requests (1 unless said otherwise) and ends. docs/protocol.md says all that one has to know to
write this. It ends when a process of the daemon does; ``fastn_p2p_client`` comes back.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

VERSION = 1
SECONDS = 10.0
"""How long anything may take."""


# ── messages: msgpack arrays that begin with a tag ───────────────────────────────────────────────


class Message(msgspec.Struct, array_like=True):
    """Additional items at the end of an array are ignored, so that fields can be added."""


class ErrorReply(Message, tag=0):
    code: str
    fields: dict[str, Any]


class Cancel(Message, tag=1):
    pass


class Ack(Message, tag=2):
    pass


class LongReply(Message, tag=3):
    pass


class Hello(Message, tag=10):
    version: int
    program: str


class RequestGrant(Message, tag=22):
    identity: str
    protocol: str
    instance: str


class Welcome(Message, tag=40):
    version: int
    daemon: str
    data_route: str


class Grant(Message, tag=47):
    grant: bytes
    key: bytes
    online: bool


class Call(Message, tag=60):
    identity: str
    peer: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str = ""
    call_id: bytes = b""
    attempt: int = 0


class Reply(Message, tag=61):
    pass


class ApplicationErrorReply(Message, tag=62):
    kind: str
    message: str


class RegisterBinding(Message, tag=71):
    identity: str
    protocol: str
    instance: str
    allow: tuple[str, ...]
    grant: bytes
    limit: int


class UnregisterBinding(Message, tag=72):
    identity: str
    protocol: str
    instance: str


class DeliverCall(Message, tag=80):
    peer: bytes
    petname: str
    identity: str
    protocol: str
    instance: str
    deadline_ms: int
    command: str
    call_id: bytes
    attempt: int


class CallUnknown(Message, tag=82):
    pass


encode = msgspec.msgpack.encode
decode = msgspec.msgpack.Decoder(
    ErrorReply | Cancel | Ack | LongReply | Welcome | Grant | Reply | ApplicationErrorReply | DeliverCall
).decode


class ProtocolError(Exception):
    """A call failed: with a stable code and its fields (``ErrorReply``), or because the handler said no."""


class ConnectionEnded(Exception):
    """The process of the daemon behind a socket has died, or nobody listens."""


# ── one connection ───────────────────────────────────────────────────────────────────────────────


class Connection:
    """A DEALER to one of the daemon's sockets. It does not reconnect: ids of one connection mean nothing on another."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: Path) -> None:
        # A socket that another user has put there is not the daemon's.
        if not path.is_socket() or path.stat().st_uid != os.getuid():
            raise ConnectionEnded(f"no daemon listens at {path}; start one with `fastn-p2p daemon`")
        self._socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.RECONNECT_IVL, -1),
            (zmq.IMMEDIATE, 1),
            (zmq.HANDSHAKE_IVL, 500),
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
            (zmq.LINGER, 1000),
        ):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._numbers = itertools.count(1)
        self._requests: deque[tuple[bytes, Message, bytes]] = deque()
        """What came under ids that the daemon has chosen."""
        self._path = path
        self._stands = False
        self._ended = False
        self._socket.connect(f"ipc://{path}")
        deadline = time.monotonic() + SECONDS
        while not self._stands:
            self._poll(deadline)

    def close(self) -> None:
        self._socket.disable_monitor()
        self._socket.close()

    def ask(self, message: Message, payload: bytes = b"", seconds: float = SECONDS) -> tuple[Message, bytes]:
        """Send a request, and wait for the answer under its id."""
        number = next(self._numbers).to_bytes(8, "big")  # the highest bit is set in the daemon's own ids
        self.send(number, message, payload)
        deadline = time.monotonic() + seconds
        try:
            while True:
                for found in self._read():
                    if found[0] != number:
                        self._requests.append(found)
                    elif isinstance(found[1], ErrorReply):
                        raise ProtocolError(f"{found[1].code}: {found[1].fields}")
                    else:
                        return found[1:]
                self._poll(deadline)
        except TimeoutError:
            self.send(number, Cancel())  # the daemon is told that nobody waits any more
            raise

    def next_request(self) -> tuple[bytes, Message, bytes]:
        """The next message under an id of the daemon's. Waits as long as it takes."""
        while not self._requests:
            self._requests.extend(self._read())
            if not self._requests:
                self._poll(None)
        return self._requests.popleft()

    def send(self, number: bytes, message: Message, payload: bytes = b"") -> None:
        self._socket.send_multipart([number, encode(message), payload])

    def _read(self) -> list[tuple[bytes, Message, bytes]]:
        """What has come. One ZeroMQ message may hold several messages of three frames each."""
        found: list[tuple[bytes, Message, bytes]] = []
        while self._socket.poll(0):
            frames = self._socket.recv_multipart()
            for number, header, payload in zip(frames[::3], frames[1::3], frames[2::3], strict=True):
                try:
                    message = decode(header)
                    if isinstance(message, LongReply):  # the answer did not fit a header
                        message, payload = decode(payload), b""
                except msgspec.DecodeError:  # of a conversation that this program does not take part in
                    continue
                found.append((number, message, payload))
        if self._ended and not found:
            raise ConnectionEnded(f"the daemon's process at {self._path} has ended")
        return found

    def _poll(self, deadline: float | None) -> None:
        """Wait for something to read, or for the end. Both are queues: what came before the end is read first."""
        left = None if deadline is None else int((deadline - time.monotonic()) * 1000)
        if left is not None and left <= 0:
            raise TimeoutError(f"no answer in {SECONDS:g} s")
        if self._monitor in dict(self._poller.poll(left)):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._stands = True
            elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
                self._ended = True
                if not self._stands:
                    raise ConnectionEnded(f"nobody listens at {self._path}; start a daemon with `fastn-p2p daemon`")


# ── a program ────────────────────────────────────────────────────────────────────────────────────


def control_socket() -> Path:
    """In the home; where the file ``sockets`` is in it, in the directory that this names."""
    home = Path(os.environ.get("FASTN_HOME") or Path.home() / ".fastn")
    note = home / "sockets"
    return (Path(note.read_text().strip()) if note.exists() else home) / "control.sock"


def connect() -> tuple[Connection, Connection]:
    """Say hello at the gateway; connections to it and to the data plane."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    gateway = Connection(context, control_socket())
    welcome, _ = gateway.ask(Hello(VERSION, "pyzmq_client.py"))
    if not isinstance(welcome, Welcome):
        raise ProtocolError(f"the gateway has answered Hello with {welcome}")
    return gateway, Connection(context, Path(welcome.data_route))


def call(identity: str, peer: str, protocol: str, request: str = "null") -> None:
    """Print the reply as JSON. An empty identity stands for the only one that is online."""
    gateway, network = connect()
    # 20 ms less than we wait ourselves: the network knows more about why there is no answer.
    message = Call(identity, peer, protocol, "default", int(SECONDS * 1000) - 20)
    reply, payload = network.ask(message, encode(msgspec.json.decode(request)))
    value = msgspec.msgpack.decode(payload) if payload else None
    network.close()
    gateway.close()
    if isinstance(reply, ApplicationErrorReply):
        raise ProtocolError(f"{reply.kind}: {reply.message} {value}")
    print(msgspec.json.encode(value).decode())


def serve(identity: str, protocol: str, requests: str = "1") -> None:
    """Answer texts with what is shouted, so many times."""
    gateway, network = connect()
    granted, _ = gateway.ask(RequestGrant(identity, protocol, "default"))
    if not isinstance(granted, Grant):
        raise ProtocolError(f"the gateway has answered RequestGrant with {granted}")
    network.ask(RegisterBinding(identity, protocol, "default", ("everyone",), granted.grant, 16))
    print(f"serving {protocol} as {identity}", flush=True)
    left = int(requests)
    while left:
        number, message, payload = network.next_request()
        if isinstance(message, DeliverCall):  # else a Cancel: too late, the answer has left
            left -= answer(network, number, message, payload)
    network.ask(UnregisterBinding(identity, protocol, "default"))
    network.close()  # lingers: the last answer still leaves
    gateway.close()


def answer(network: Connection, number: bytes, message: DeliverCall, payload: bytes) -> bool:
    """Answer a request under its id, once. Whether it was one that has been handled."""
    if message.attempt:  # is this a call that we have had before? We do not remember any
        network.send(number, CallUnknown())
        return False
    try:
        text = msgspec.msgpack.decode(payload, type=str)
    except msgspec.DecodeError as error:
        network.send(number, ErrorReply("bad-request", {"protocol": message.protocol, "reason": str(error)}))
        return True
    if text:
        network.send(number, Reply(), encode(text.upper() + "!"))
    else:  # an error of the program's own, with data for the caller
        network.send(number, ApplicationErrorReply("Empty", "there is nothing to shout"), encode({"length": 0}))
    return True


def main() -> int:
    try:
        match sys.argv[1:]:
            case ["call", identity, peer, protocol, *request] if len(request) <= 1:
                call(identity, peer, protocol, *request)
            case ["serve", identity, protocol, *requests] if len(requests) <= 1:
                serve(identity, protocol, *requests)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (ProtocolError, ConnectionEnded, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
