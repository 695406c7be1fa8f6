"""Local sockets without the client library: a test sends any message in any form to any mailbox."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import msgspec
import zmq

from fastn_p2p_actors.runtime.specs import VaultAccess
from fastn_p2p_client.ipc.messages import Hello
from fastn_p2p_client.ipc.transport.pyzmq.sockets import close_socket, dealer, endpoint
from tests.support.daemons import Daemon
from tests.support.processes import resident

__all__ = ["DONE", "REPLY", "WELCOME", "Keys", "Raw", "hello", "unharmed"]

DONE: Final = 2
WELCOME: Final = 40
REPLY: Final = 61
_FAILURE: Final = 0


class Keys(NamedTuple):
    """CURVE keys of a caller's own choice."""

    server_public: str
    public: str
    secret: str

    @classmethod
    def made_up(cls, server_public: str) -> Keys:
        public, secret = zmq.curve_keypair()
        return cls(server_public, public.decode(), secret.decode())


class Raw:
    """DEALER socket to one mailbox. Use it in one thread."""

    def __init__(self, path: Path, curve: Keys | VaultAccess | None = None) -> None:
        self._socket = dealer()
        if curve is not None:
            self._socket.set(zmq.CURVE_SERVERKEY, curve.server_public.encode())
            self._socket.set(zmq.CURVE_PUBLICKEY, curve.public.encode())
            self._socket.set(zmq.CURVE_SECRETKEY, curve.secret.encode())
        self._socket.connect(endpoint(path))
        self._number = 0
        self._received: deque[list[bytes]] = deque()

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_socket(self._socket)

    def send(self, *frames: bytes, timeout: float = 60.0) -> bool:
        """Send a message; return False if there is no connection in time."""
        if not self._socket.poll(int(timeout * 1000), zmq.POLLOUT):
            return False
        self._socket.send_multipart(frames)
        return True

    def receive(self, timeout: float = 60.0) -> list[bytes] | None:
        """Return the next message (id, header, payload), or None if none arrives in time."""
        if not self._received and self._socket.poll(int(timeout * 1000)):
            group = self._socket.recv_multipart()
            assert len(group) % 3 == 0
            self._received.extend(group[start : start + 3] for start in range(0, len(group), 3))
        return self._received.popleft() if self._received else None

    def request(self, message: msgspec.Struct | bytes, payload: bytes = b"", timeout: float = 60.0) -> str | int | None:
        """Return the code of an error reply, the tag of another answer, or None if none arrives in time."""
        answer = self.request_message(message, payload, timeout)
        if answer is None:
            return None
        return str(answer[1]) if answer[0] == _FAILURE else int(answer[0])

    def request_message(
        self, message: msgspec.Struct | bytes, payload: bytes = b"", timeout: float = 15.0
    ) -> list[Any] | None:
        """Return the answer as an array, its tag and its fields; None if none arrives in time."""
        self._number += 1
        mine = self._number.to_bytes(8, "big")
        header = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
        if not self.send(mine, header, payload, timeout=timeout):
            return None
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            answer = self.receive(left)
            if answer is not None and answer[0] == mine:
                decoded: list[Any] = msgspec.msgpack.decode(answer[1])
                return decoded
        return None


def hello(raw: Raw) -> None:
    """Send a hello to the control server, which must accept it."""
    assert raw.request(Hello(1, "raw")) == WELCOME


_MIB: Final = 1024 * 1024


@contextmanager
def unharmed(daemon: Daemon, grows_by: int = 48 * _MIB, except_for: tuple[str, ...] = ()) -> Iterator[None]:
    """Check that every process of the daemon survives the block, and that none grows by more than ``grows_by``
    bytes."""
    before = {name: pid for name, pid in daemon.pids().items() if name not in except_for}
    sizes = {name: resident(pid) for name, pid in before.items()}
    yield
    after = daemon.pids()
    assert before.items() <= after.items(), daemon.report()
    for name, pid in before.items():
        size = resident(pid)
        assert size < sizes[name] + grows_by, f"{name} grew from {sizes[name]} to {size} bytes"
