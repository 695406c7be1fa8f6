"""Daemon that hostile peers reach over QUIC, and the requests of one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_client.keys import PublicKey
from tests.support.daemons import Daemon
from tests.support.hostile_peer import SECRET, Target, endpoint_of
from tests.support.signer import Signer

__all__ = ["MALLORY", "REQUEST", "QuicVictim", "introduction", "request", "victim"]

MALLORY: Final = Signer("mallory")
REQUEST: Final = msgspec.msgpack.encode({"message": "hi"})


class QuicVictim:
    """A daemon that offers Echo to everyone, and another one that calls it honestly."""

    def __init__(self, daemon: Daemon, honest: Daemon) -> None:
        self.daemon, self.honest = daemon, honest
        self.peer = daemon.identity("victim", config='{"max_length": 20000000}')
        self.key = bytes(PublicKey(self.peer))
        honest.identity("honest", echo=False)
        status = daemon.status()
        self.target = Target(bytes.fromhex(status.endpoint), status.addresses)
        self.assert_serves()

    def assert_serves(self, size: int = 2) -> None:
        """An honest call still gets its answer."""
        with self.honest.client() as client:
            reply = client.call("honest", self.peer, "Echo", request={"message": "x" * size})
        assert reply == {"echoed": "Echo: " + "x" * size}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuicVictim]:
    folder = tmp_path_factory.mktemp("quic")
    daemon, honest = (Daemon(folder / name, folder / "hosts") for name in ("victim", "honest"))
    try:
        daemon.launch()
        honest.start()
        assert daemon.wait_ready(), daemon.report()
        yield QuicVictim(daemon, honest)
    finally:
        daemon.clean_up()
        honest.clean_up()


def introduction(secret: bytes = SECRET) -> bytes:
    """Mallory may introduce itself: every stranger can make keys."""
    now = int(time.time())
    blob = MALLORY.delegation(endpoint=endpoint_of(secret), not_before=now - 10, not_after=now + 1000)
    return encode_frame(wire.Introduce(blob))


def request(number: int, target: bytes, protocol: str = "Echo", deadline_ms: int = 10_000) -> bytes:
    return encode_frame(wire.Request(number, bytes(MALLORY.key), target, protocol, "default", deadline_ms), REQUEST)
