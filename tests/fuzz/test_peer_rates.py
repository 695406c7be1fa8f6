"""Peers that ask faster than they may: told so, disconnected when they go on, and no matter to others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from fastn_p2p_actors.network.transport.peer_limits import REFUSED_REQUESTS
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from tests.support.hostile_peer import HELLO, AnyStep, Channel, Talk, Until, hostile_peer
from tests.support.quic_victim import MALLORY, QuicVictim, introduction, request, victim
from tests.support.raw_connections import unharmed

__all__ = ["victim"]

BURST: Final = int(REFUSED_REQUESTS.endpoint.burst)


def opening(number: int, target: bytes, protocol: str) -> bytes:
    return encode_frame(wire.OpenSession(number, bytes(MALLORY.key), target, protocol, "default", 10_000))


FLOODS: Final[dict[str, Callable[[int, bytes], bytes]]] = {
    "calls": lambda number, key: request(number, key, "Nothing"),
    "sessions": lambda number, key: opening(number, key, "Nothing"),
    "calls to an identity that is not online": lambda number, key: request(number, bytes(MALLORY.key)),
    "calls and sessions": lambda number, key: (request if number % 2 else opening)(number, key, "Nothing"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_requests_that_are_refused_are_limited_and_a_stranger_that_goes_on_is_disconnected(
    victim: QuicVictim, flood: str
) -> None:
    make, secret = FLOODS[flood], flood.encode().ljust(32)[:32]
    first = b"".join(make(number, victim.key) for number in range(1, BURST + 201))
    rest = b"".join(make(number, victim.key) for number in range(BURST + 201, 2 * BURST + 1000))
    steps: list[AnyStep] = [Channel(HELLO + introduction(secret) + first), Until(frames=BURST + 200)]
    with unharmed(victim.daemon):
        talk = Talk(steps, secret=secret, later=[Channel(rest), Until(closed=True)])
        with hostile_peer(victim.target, [talk]) as accounts:
            codes = accounts[0].codes
            assert "overloaded" in codes, set(codes)
            assert len(codes) - codes.count("overloaded") >= BURST
            assert not accounts[0].closed, "it is told before it is disconnected"
            victim.assert_serves()
            accounts.go_on()
            # The packet with the reason may be lost in the flood. The next packet is then answered by a reset.
            reasons = "too many requests per second that are refused", "reset by peer"
            assert any(reason in accounts[0].closed for reason in reasons), accounts[0].closed
        victim.assert_serves()


def test_calls_that_are_served_are_not_limited(victim: QuicVictim) -> None:
    count = 4 * BURST
    secret = b"served".ljust(32)
    calls = b"".join(request(number, victim.key) for number in range(1, count + 1))
    with hostile_peer(
        victim.target, [Talk([Channel(HELLO + introduction(secret) + calls), Until(frames=count)], secret)]
    ) as (account,):
        assert not account.codes
        assert len(account.answers) == count


def test_refusals_of_one_stranger_cost_another_in_its_network_no_served_call(victim: QuicVictim) -> None:
    secrets = [f"crowd {number}".encode().ljust(32) for number in range(6)]
    flood = b"".join(request(number, victim.key, "Nothing") for number in range(1, BURST + 300))
    talks = [Talk([Channel(HELLO + introduction(secret) + flood), Until(frames=BURST)], secret) for secret in secrets]
    with unharmed(victim.daemon), hostile_peer(victim.target, talks):
        for _ in range(20):
            victim.assert_serves()
        with victim.honest.client() as client:
            assert client.call("honest", victim.peer, "Echo", request={"message": "x"}) == {"echoed": "Echo: x"}


RETRY: Final = """
import asyncio, sys
from pathlib import Path
from fastn_p2p_actors.network.transport import endpoint as module
async def main():
    module._RETRY_ABOVE = 0
    here, there = [
        await module.NetworkEndpoint.bind(bytes([n]) * 32, "local", Path(sys.argv[1]) / f"port{n}") for n in (1, 2)
    ]
    accepted = asyncio.Queue()
    there.accept_into(accepted.put_nowait)
    for _ in range(3):
        async with asyncio.timeout(50):
            connection = await here.dial(there.address())
            other = await accepted.get()
            assert bytes(other.remote_id().to_bytes()) == here.id
    print(there.retried, there.refused, flush=True)
    await here.close()
    await there.close()
asyncio.run(main())
"""


def test_an_address_that_proves_itself_gets_through(tmp_path: object) -> None:
    """QUIC Retry, as when many handshakes are in progress: the other side answers it by itself."""
    done = subprocess.run(
        [sys.executable, "-c", RETRY, str(tmp_path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", "0"]
