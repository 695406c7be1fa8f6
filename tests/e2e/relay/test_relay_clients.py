"""A relay serves clients that prove their key, passes datagrams on unread, and bears with those that misbehave."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import aiohttp
import pytest
from nacl.signing import SigningKey

from fastn_p2p.relay.frames import PING, V1, V2
from fastn_p2p.relay.relay_limits import MAX_FRAME, MAX_SAME_KEY
from fastn_p2p.relay.relay_server import RelayServer
from fastn_p2p_client.keys import id52_of
from tests.support.relay_clients import DEADLINE, RelayClient, running_relay

GOING_AWAY, PROTOCOL_ERROR, POLICY_VIOLATION, TOO_BIG = 1001, 1002, 1008, 1009


def url_of(server: RelayServer) -> str:
    return f"http://{server.addresses[0]}/"


async def until_clients(server: RelayServer, number: int) -> None:
    """Wait until the relay has so many clients."""
    async with asyncio.timeout(DEADLINE):
        while len(server.relay.clients) != number:  # noqa: ASYNC110  (the server has no event for tests)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("version", [V1, V2])
async def test_datagrams_arrive_with_the_key_of_their_sender(version: str) -> None:
    async with (
        running_relay() as server,
        await RelayClient.connect(url_of(server), version=version) as alice,
        await RelayClient.connect(url_of(server), version=version) as bob,
    ):
        await alice.send_to(bob.key, b"one")
        assert await bob.receive() == b"\x06" + alice.key + b"\0one"
        await bob.send(b"\x05" + alice.key + b"\x01\0\x03twotwo")
        assert await alice.receive() == b"\x07" + bob.key + b"\x01\0\x03twotwo"
        await alice.send_to(alice.key, b"self")
        assert await alice.receive() == b"\x06" + alice.key + b"\0self"
        assert (server.metrics.datagrams, server.metrics.datagrams_dropped_unknown) == (3, 0)


async def test_the_largest_datagram_passes() -> None:
    content = secrets.token_bytes(MAX_FRAME - 34)
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as alice:
        await alice.send_to(alice.key, content)
        assert (await alice.receive())[34:] == content


async def test_a_datagram_to_an_unknown_client_is_dropped() -> None:
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as alice:
        await alice.send_to(secrets.token_bytes(32), b"lost")
        await alice.send(b"\x0912345678")
        assert await alice.receive() == b"\x0a12345678"
        assert server.metrics.datagrams_dropped_unknown == 1


async def test_receivers_hear_when_their_sender_is_gone() -> None:
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as bob:
        async with await RelayClient.connect(url_of(server)) as alice:
            await alice.send_to(bob.key, b"hello")
            await bob.receive()
        assert await bob.receive() == b"\x08" + alice.key


@pytest.mark.parametrize(
    ("version", "same_key", "healthy"),
    [(V2, b"\x0d\x01", b"\x0d\x00"), (V1, b"\x0banother connection with the same key is active", b"\x0b")],
)
async def test_the_newest_connection_of_a_key_is_active(version: str, same_key: bytes, healthy: bytes) -> None:
    key = SigningKey.generate()
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as bob:
        old = await RelayClient.connect(url_of(server), key, version)
        new = await RelayClient.connect(url_of(server), key, version)
        assert await old.receive() == same_key
        await bob.send_to(old.key, b"to the newest")
        assert (await new.receive()).endswith(b"to the newest")
        await old.send_to(bob.key, b"an older one may send")
        assert (await bob.receive()).endswith(b"an older one may send")
        await new.close()
        assert await old.receive() == healthy
        await bob.send_to(old.key, b"again")
        assert (await old.receive()).endswith(b"again")
        await old.close()
        await until_clients(server, 1)


async def test_one_connection_of_a_key_too_many_closes_the_oldest() -> None:
    key = SigningKey.generate()
    async with running_relay() as server:
        clients = [await RelayClient.connect(url_of(server), key) for _ in range(MAX_SAME_KEY + 1)]
        await clients[0].closed()
        await until_clients(server, MAX_SAME_KEY)
        for client in clients:
            await client.close()
        await until_clients(server, 0)


# ── handshakes ───────────────────────────────────────────────────────────────────────────────────


async def test_a_signature_of_another_key_is_denied() -> None:
    async with running_relay() as server, await RelayClient.open(url_of(server)) as mallory:
        frame = mallory.authentication((await mallory.receive())[1:])
        other = bytes(SigningKey.generate().verify_key)
        await mallory.send(frame[:1] + other + frame[33:])
        assert await mallory.receive() == b"\x03\x11signature invalid"
        assert await mallory.closed() == POLICY_VIOLATION
        assert (server.metrics.handshakes_failed, len(server.relay.clients)) == (1, 0)


async def test_a_signature_over_an_older_challenge_is_denied() -> None:
    async with running_relay() as server, await RelayClient.open(url_of(server)) as mallory:
        await mallory.receive()
        await mallory.send(mallory.authentication(secrets.token_bytes(16)))
        assert (await mallory.receive())[:1] == b"\x03"


@pytest.mark.parametrize("frame", [b"", b"\x04" + bytes(40), b"\x01" + bytes(95), b"\x01" + bytes(97), b"\xff" * 98])
async def test_other_frames_end_a_handshake(frame: bytes) -> None:
    async with running_relay() as server, await RelayClient.open(url_of(server)) as mallory:
        await mallory.receive()
        await mallory.send(frame)
        assert (await mallory.receive())[:1] == b"\x03"
        assert await mallory.closed() == POLICY_VIOLATION


async def test_a_client_of_an_unknown_version_is_refused() -> None:
    async with running_relay() as server:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await RelayClient.open(url_of(server), version="iroh-relay-v9")
        assert caught.value.status == 400


async def test_only_keys_of_the_access_list_are_admitted(tmp_path: Path) -> None:
    alice, bob = SigningKey.generate(), SigningKey.generate()
    allow = tmp_path / "allow"
    allow.write_text(f"# the team\n{bytes(alice.verify_key).hex()}\n\n{id52_of(bytes(bob.verify_key))} # bob\n")
    async with running_relay(allow=allow) as server:
        async with await RelayClient.connect(url_of(server), alice), await RelayClient.connect(url_of(server), bob):
            pass
        async with await RelayClient.open(url_of(server)) as mallory:
            await mallory.send(mallory.authentication((await mallory.receive())[1:]))
            assert b"not on the relay's access list" in await mallory.receive()
        # A key that is removed from the list loses its connection; one that is added gets in.
        async with await RelayClient.connect(url_of(server), alice) as removed:
            allow.write_text(f"{bytes(mallory.signer.verify_key).hex()}\n")
            server.reload()
            assert await removed.closed() == POLICY_VIOLATION
        async with await RelayClient.connect(url_of(server), mallory.signer):
            allow.write_text("no key\n")
            server.reload()  # the list of before stays
            await until_clients(server, 1)


# ── misbehaviour ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x04",
        b"\x04" + bytes(32),  # without the byte of ECN
        b"\x05" + bytes(34),  # without the size of a segment
        b"\x06" + bytes(40),  # only a relay sends it
        b"\x01" + bytes(97),
        b"\x09" + bytes(7),
        b"\x0a" + bytes(9),
        b"\x7f" + bytes(100),
        bytes(5000),
    ],
)
async def test_a_frame_that_breaks_the_protocol_ends_its_sender_alone(frame: bytes) -> None:
    async with (
        running_relay() as server,
        await RelayClient.connect(url_of(server)) as alice,
        await RelayClient.connect(url_of(server)) as mallory,
    ):
        await mallory.send(frame)
        assert await mallory.closed() == PROTOCOL_ERROR
        assert server.metrics.clients_misbehaved == 1
        await alice.send_to(alice.key, b"still here")
        assert (await alice.receive()).endswith(b"still here")


async def test_text_ends_a_client() -> None:
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as mallory:
        await mallory.send_text("hello")
        assert await mallory.closed() == PROTOCOL_ERROR


async def test_a_huge_frame_ends_a_client() -> None:
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as mallory:
        await mallory.send_to(mallory.key, bytes(MAX_FRAME))
        assert await mallory.closed() == TOO_BIG
        await until_clients(server, 0)
        assert server.metrics.clients_misbehaved == 1


async def test_clients_hear_that_the_relay_stops() -> None:
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as alice:
        stopping = asyncio.create_task(server.stop())
        frame = await alice.receive()
        assert (frame[0], len(frame)) == (12, 9)
        assert int.from_bytes(frame[1:5], "big") < 2000
        assert await alice.closed() == GOING_AWAY
        await stopping


async def test_a_websocket_ping_is_answered() -> None:
    async with running_relay() as server, await RelayClient.connect(url_of(server)) as alice:
        await alice.send(bytes((PING,)) + b"12345678")
        assert await alice.receive() == b"\x0a12345678"
