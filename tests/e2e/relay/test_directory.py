"""The directory keeps the newest packet of each key, and takes it only from its owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from nacl.signing import SigningKey

from fastn_p2p.relay.relay_limits import PUBLISH_RATE, RESOLVE_RATE
from fastn_p2p.relay.relay_server import RelayServer
from fastn_p2p_actors.credentials.dns_packet import read_txt_values
from fastn_p2p_actors.credentials.pkarr import CONTENT_TYPE, MAX_BODY, join_body, read_signed_packet, signing_input
from fastn_p2p_client.keys import id52_of
from tests.support.relay_clients import running_relay, signed_packet, z32

ALICE = SigningKey.generate()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def path(server: RelayServer, signer: SigningKey = ALICE) -> str:
    return f"http://{server.addresses[0]}/pkarr/{z32(signer)}"


async def put(http: aiohttp.ClientSession, url: str, body: bytes) -> int:
    async with http.put(url, data=body) as response:
        return response.status


async def get(http: aiohttp.ClientSession, url: str) -> bytes | None:
    async with http.get(url) as response:
        if response.status == 404:
            return None
        assert (response.status, response.content_type) == (200, CONTENT_TYPE)
        return await response.read()


async def test_a_published_packet_is_found(http: aiohttp.ClientSession) -> None:
    async with running_relay() as server:
        assert await get(http, path(server)) is None
        body = signed_packet(ALICE, 1, b"\0\xffrecord")
        assert await put(http, path(server), body) == 204
        found = await get(http, path(server))
        assert found == body
        packet = read_signed_packet(bytes(ALICE.verify_key), body)
        assert read_txt_values(packet.packet, f"_record.{z32(ALICE)}") == (b"\0\xffrecord",)


async def test_a_newer_packet_replaces_an_older_one(http: aiohttp.ClientSession) -> None:
    async with running_relay() as server:
        newer = signed_packet(ALICE, 5, b"newer")
        assert await put(http, path(server), signed_packet(ALICE, 4, b"first")) == 204
        assert await put(http, path(server), newer) == 204
        assert await put(http, path(server), signed_packet(ALICE, 4, b"older")) == 409
        assert await put(http, path(server), signed_packet(ALICE, 5, b"other")) == 409
        assert await put(http, path(server), newer) == 204  # again: it is kept longer
        assert await get(http, path(server)) == newer


async def test_only_the_owner_of_a_key_publishes(http: aiohttp.ClientSession) -> None:
    async with running_relay() as server:
        body = signed_packet(ALICE, 1)
        assert await put(http, path(server, SigningKey.generate()), body) == 400
        assert await put(http, path(server), body[:-1] + b"x") == 400
        assert await put(http, path(server), body[:50]) == 400
        assert await put(http, path(server), b"") == 400
        assert await get(http, path(server)) is None
        assert server.metrics.packets_refused == 4


async def test_only_dns_messages_are_taken(http: aiohttp.ClientSession) -> None:
    packet = b"free storage"
    body = join_body(ALICE.sign(signing_input(1, packet)).signature, 1, packet)
    async with running_relay() as server:
        assert await put(http, path(server), body) == 400


@pytest.mark.parametrize("size", [MAX_BODY + 1, 1_000_000])
async def test_large_bodies_are_refused(http: aiohttp.ClientSession, size: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(0, size, 1000):
            yield bytes(1000)

    async with running_relay() as server:
        assert await put(http, path(server), bytes(size)) == 413
        try:
            async with http.put(path(server), data=pieces()) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            assert size > MAX_BODY + 1  # the server does not read the rest


async def test_other_paths_and_methods(http: aiohttp.ClientSession) -> None:
    async with running_relay() as server:
        base = f"http://{server.addresses[0]}"
        for url, status in [("/pkarr/", 400), ("/pkarr/abc", 400), ("/pkarr/a/b", 404), ("/x", 404), ("/", 200)]:
            async with http.get(base + url) as response:
                assert response.status == status, url
        async with http.delete(path(server)) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, PUT")
        async with http.get(f"{base}/ping") as response:
            assert response.status == 200
        async with http.get(f"{base}/generate_204", headers={"X-Iroh-Challenge": "ts_1:a.b-c"}) as response:
            assert (response.status, response.headers["X-Iroh-Response"]) == (204, "response ts_1:a.b-c")
        async with http.get(f"{base}/generate_204", headers={"X-Iroh-Challenge": "a/b"}) as response:
            assert "X-Iroh-Response" not in response.headers


async def test_each_address_has_a_rate(http: aiohttp.ClientSession) -> None:
    async with running_relay() as server:
        codes = [await put(http, path(server), b"") for _ in range(int(PUBLISH_RATE.burst) * 2)]
        assert set(codes) == {400, 429}
        assert codes.index(429) >= PUBLISH_RATE.burst
        assert await get(http, path(server)) is None  # reading has a rate of its own
        for _ in range(int(RESOLVE_RATE.burst) * 4):
            async with http.get(path(server)) as response:
                if response.status == 429:
                    assert response.headers["Retry-After"] == "1"
                    break
        else:
            pytest.fail("reading has no rate")


async def test_a_file_keeps_packets_over_a_restart(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    file = tmp_path / "directory.sqlite"
    body = signed_packet(ALICE, 7)
    async with running_relay(file) as server:
        assert await put(http, path(server), body) == 204
    async with running_relay(file) as server:
        assert await get(http, path(server)) == body
        assert await put(http, path(server), signed_packet(ALICE, 6)) == 409
    async with running_relay() as server:
        assert await get(http, path(server)) is None


async def test_the_access_list_holds_for_publishing(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    bob = SigningKey.generate()
    allow = tmp_path / "allow"
    allow.write_text(id52_of(bytes(ALICE.verify_key)))
    async with running_relay(allow=allow) as server:
        assert await put(http, path(server), signed_packet(ALICE, 1)) == 204
        assert await put(http, path(server, bob), signed_packet(bob, 1)) == 403


async def test_a_full_directory_drops_what_was_published_longest_ago(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    signers = [SigningKey.generate() for _ in range(4)]
    file = tmp_path / "directory.sqlite"
    async with running_relay(file, packets=3) as server:
        for signer in signers[:3]:
            assert await put(http, path(server, signer), signed_packet(signer, 1)) == 204
        assert await put(http, path(server, signers[0]), signed_packet(signers[0], 2)) == 204
        assert await put(http, path(server, signers[3]), signed_packet(signers[3], 1)) == 204
    async with running_relay(file, packets=3) as server:
        kept = [await get(http, path(server, signer)) is not None for signer in signers]
        assert kept == [True, False, True, True]
