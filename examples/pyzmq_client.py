"""Client of the local protocol that uses only pyzmq and msgspec: make a call, or serve requests.

    python examples/pyzmq_client.py call alice PEER Echo '{"message": "hi"}'
    python examples/pyzmq_client.py serve alice Shout 3

``serve`` answers that many requests (default: 1) and ends. It follows docs/protocol.md and nothing else. It does not
reconnect: when a process of the daemon ends, it ends too. ``fastn_p2p_client`` reconnects.
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
TIMEOUT = 10.0
"""Seconds for a connection or a reply."""


# ── messages: msgpack arrays that begin with a tag ───────────────────────────────────────────────


class Message(msgspec.Struct, array_like=True):
    """Base of the messages. Extra items at the end of an array are ignored, so that later versions can add fields."""


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
    """A request failed with an error reply (code and fields) or with an application error of the handler."""


class ConnectionEnded(Exception):
    """The process behind a socket has ended, or no process listens on it."""


# ── one connection ───────────────────────────────────────────────────────────────────────────────


class Connection:
    """DEALER socket to one of the daemon's sockets. It does not reconnect, because ids belong to one connection."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: Path) -> None:
        # Reject a socket that another user has put there.
        if not path.is_socket() or path.stat().st_uid != os.getuid():
            raise ConnectionEnded(f"no daemon listens at {path}. Start one: fastn-p2p daemon")
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
        self._ids = itertools.count(1)
        self._requests: deque[tuple[bytes, Message, bytes]] = deque()
        """Received messages with ids that the daemon has chosen."""
        self._path = path
        self._connected = False
        self._ended = False
        self._socket.connect(f"ipc://{path}")
        deadline = time.monotonic() + TIMEOUT
        while not self._connected:
            self._poll(deadline)

    def close(self) -> None:
        """Close the socket."""
        self._socket.disable_monitor()
        self._socket.close()

    def request(self, message: Message, payload: bytes = b"", seconds: float = TIMEOUT) -> tuple[Message, bytes]:
        """Send a request and return its reply, which has the same correlation id.

        Raises:
            ProtocolError: the reply is an error reply.
            ConnectionEnded: the process behind the socket has ended.
            TimeoutError: there was no reply in time; the request is cancelled.
        """
        id = next(self._ids).to_bytes(8, "big")  # ids of the daemon have the highest bit set
        self.send(id, message, payload)
        deadline = time.monotonic() + seconds
        try:
            while True:
                for found in self._read():
                    if found[0] != id:
                        self._requests.append(found)
                    elif isinstance(found[1], ErrorReply):
                        raise ProtocolError(f"{found[1].code}: {found[1].fields}")
                    else:
                        return found[1:]
                self._poll(deadline)
        except TimeoutError:
            self.send(id, Cancel())
            raise

    def next_request(self) -> tuple[bytes, Message, bytes]:
        """Wait for the next message with an id of the daemon, and return it."""
        while not self._requests:
            self._requests.extend(self._read())
            if not self._requests:
                self._poll(None)
        return self._requests.popleft()

    def send(self, id: bytes, message: Message, payload: bytes = b"") -> None:
        """Send one message."""
        self._socket.send_multipart([id, encode(message), payload])

    def _read(self) -> list[tuple[bytes, Message, bytes]]:
        """Return received messages. One ZeroMQ message can contain several messages of three frames each."""
        found: list[tuple[bytes, Message, bytes]] = []
        while self._socket.poll(0):
            frames = self._socket.recv_multipart()
            for id, header, payload in zip(frames[::3], frames[1::3], frames[2::3], strict=True):
                try:
                    message = decode(header)
                    if isinstance(message, LongReply):  # the reply was too long for a header
                        message, payload = decode(payload), b""
                except msgspec.DecodeError:  # a message that this program does not use
                    continue
                found.append((id, message, payload))
        if self._ended and not found:
            raise ConnectionEnded(f"the process at {self._path} has ended")
        return found

    def _poll(self, deadline: float | None) -> None:
        """Wait until there is something to read, or until the connection ends."""
        left = None if deadline is None else int((deadline - time.monotonic()) * 1000)
        if left is not None and left <= 0:
            raise TimeoutError(f"no reply in {TIMEOUT:g} s")
        if self._monitor in dict(self._poller.poll(left)):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
            elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
                self._ended = True
                if not self._connected:
                    raise ConnectionEnded(f"no process listens at {self._path}. Start a daemon: fastn-p2p daemon")


# ── a program ────────────────────────────────────────────────────────────────────────────────────


def control_socket() -> Path:
    """Return the path of the control socket: in the home, or in the directory that the file ``sockets`` there names."""
    home = Path(os.environ.get("FASTN_HOME") or Path.home() / ".fastn")
    directory_file = home / "sockets"
    return (Path(directory_file.read_text().strip()) if directory_file.exists() else home) / "control.sock"


def connect() -> tuple[Connection, Connection]:
    """Send Hello to the gateway. Return connections to the gateway and to the network process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    gateway = Connection(context, control_socket())
    welcome, _ = gateway.request(Hello(VERSION, "pyzmq_client.py"))
    if not isinstance(welcome, Welcome):
        raise ProtocolError(f"the reply to Hello is {welcome}")
    return gateway, Connection(context, Path(welcome.data_route))


def call(identity: str, peer: str, protocol: str, request: str = "null") -> None:
    """Make one call and print the reply as JSON. With an empty identity, call as the only one that is online."""
    gateway, network = connect()
    # 20 ms less than our own timeout, so that the network process can reply with the reason.
    message = Call(identity, peer, protocol, "default", int(TIMEOUT * 1000) - 20)
    reply, payload = network.request(message, encode(msgspec.json.decode(request)))
    value = msgspec.msgpack.decode(payload) if payload else None
    network.close()
    gateway.close()
    if isinstance(reply, ApplicationErrorReply):
        raise ProtocolError(f"{reply.kind}: {reply.message} {value}")
    print(msgspec.json.encode(value).decode())


def serve(identity: str, protocol: str, requests: str = "1") -> None:
    """Answer that many requests: return each text in upper case."""
    gateway, network = connect()
    granted, _ = gateway.request(RequestGrant(identity, protocol, "default"))
    if not isinstance(granted, Grant):
        raise ProtocolError(f"the reply to RequestGrant is {granted}")
    network.request(RegisterBinding(identity, protocol, "default", ("everyone",), granted.grant, 16))
    print(f"serving {protocol} as {identity}", flush=True)
    left = int(requests)
    while left:
        id, message, payload = network.next_request()
        if isinstance(message, DeliverCall):  # otherwise a Cancel, which is too late: the reply was sent
            left -= answer(network, id, message, payload)
    network.request(UnregisterBinding(identity, protocol, "default"))
    network.close()  # lingers, so that the last reply is sent
    gateway.close()


def answer(network: Connection, id: bytes, message: DeliverCall, payload: bytes) -> bool:
    """Reply to a request, with its id. Return whether the handler ran."""
    if message.attempt:  # a retried call: this program stores no replies
        network.send(id, CallUnknown())
        return False
    try:
        text = msgspec.msgpack.decode(payload, type=str)
    except msgspec.DecodeError as error:
        network.send(id, ErrorReply("bad-request", {"protocol": message.protocol, "reason": str(error)}))
        return True
    if text:
        network.send(id, Reply(), encode(text.upper() + "!"))
    else:  # an application error, with data for the caller
        network.send(id, ApplicationErrorReply("Empty", "the text is empty"), encode({"length": 0}))
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
