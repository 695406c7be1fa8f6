"""Requests to directories that answer well, badly, slowly, endlessly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from fastn_p2p_actors.credentials.pkarr import CONTENT_TYPE, MAX_BODY, encode_key
from fastn_p2p_actors.network.discovery import directory_client
from fastn_p2p_actors.network.discovery.directory_client import (
    DirectoryBusy,
    DirectoryClient,
    DirectoryRefused,
    DirectoryUnavailable,
    NewerPacket,
)
from fastn_p2p_client.errors import BadMessage, BadSignature
from tests.support.scripted_directory import ScriptedDirectory, answer_with, running_directory
from tests.support.signer import Signer

BOB, MALLORY = Signer("bob"), Signer("mallory")
KEY = bytes(BOB.key)
PACKET = BOB.packet(b"record", 7)


@pytest.fixture
async def directory() -> AsyncIterator[ScriptedDirectory]:
    async with running_directory() as server:
        yield server


@pytest.fixture
async def client(directory: ScriptedDirectory) -> AsyncIterator[DirectoryClient]:
    client = DirectoryClient(directory.url)
    yield client
    await client.close()


async def test_a_published_packet_is_found(client: DirectoryClient, directory: ScriptedDirectory) -> None:
    assert await client.get(KEY) is None
    await client.put(KEY, PACKET)
    found = await client.get(KEY)
    assert found is not None
    assert found.body() == PACKET
    assert {each.path for each in directory.requests} == {f"/pkarr/{encode_key(KEY)}"}
    assert directory.requests[1].headers["content-type"] == CONTENT_TYPE
    assert directory.connections == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", BadMessage),
        (b"short", BadMessage),
        (bytes(200), BadSignature),
        (PACKET[:-1] + b"x", BadSignature),
        (MALLORY.packet(b"record", 9), BadSignature),
        (PACKET + bytes(1), BadSignature),
        (bytes(MAX_BODY + 1), DirectoryUnavailable),
    ],
)
async def test_forged_and_damaged_packets_are_refused(
    client: DirectoryClient, directory: ScriptedDirectory, body: bytes, error: type[Exception]
) -> None:
    directory.packets[KEY] = body
    with pytest.raises(error):
        await client.get(KEY)
    directory.packets[KEY] = PACKET
    assert await client.get(KEY) is not None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(client: DirectoryClient, directory: ScriptedDirectory, status: int) -> None:
    async with running_directory() as other:
        other.packets[KEY] = PACKET
        directory.always = answer_with(status, Location=f"{other.url}/{encode_key(KEY)}")
        with pytest.raises(DirectoryRefused, match=r"redirects to .*not followed"):
            await client.get(KEY)
        assert not other.requests


async def test_cookies_are_not_kept(client: DirectoryClient, directory: ScriptedDirectory) -> None:
    directory.script.append(answer_with(404, Set_Cookie="who=you"))
    await client.get(KEY)
    await client.get(KEY)
    assert "cookie" not in directory.requests[1].headers


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, DirectoryRefused),
        (403, DirectoryRefused),
        (413, DirectoryRefused),
        (409, NewerPacket),
        (412, NewerPacket),
        (500, DirectoryUnavailable),
        (502, DirectoryUnavailable),
    ],
)
async def test_each_refusal_has_its_error(
    client: DirectoryClient, directory: ScriptedDirectory, status: int, error: type[Exception]
) -> None:
    directory.always = answer_with(status, b"because\nof \x1b[1m this")
    with pytest.raises(error) as caught:
        await client.put(KEY, PACKET)
    assert type(caught.value) is error
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("0", 0.1), ("999999", 600), ("Tue, 3 Jun 2008", 1), ("", 1), ("-3", 1)]
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_directory_can_ask_for_a_pause(
    client: DirectoryClient, directory: ScriptedDirectory, status: int, value: str, seconds: float
) -> None:
    directory.always = answer_with(status, Retry_After=value)
    with pytest.raises(DirectoryBusy) as caught:
        await client.put(KEY, PACKET)
    assert caught.value.retry_delay == seconds


def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4\r\nabcd\r\n" * 100_000)


def endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 x\r\n" + b"X: " + b"y" * 1_000_000)


def half_an_answer(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 x\r\nContent-Length: 500\r\n\r\nabc")


def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def no_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH\r\n" * 10)


@pytest.mark.parametrize("answer", [endless_body, endless_header, half_an_answer, closed, no_http, lambda _: None])
async def test_bad_answers_end_and_harm_no_later_request(
    client: DirectoryClient,
    directory: ScriptedDirectory,
    answer: Callable[[asyncio.StreamWriter], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await client.get(KEY)
    directory.packets[KEY] = PACKET
    for _ in range(2 * directory_client._CONNECTIONS):
        directory.script.append(answer)
        monkeypatch.setattr(directory_client, "_TOTAL_TIMEOUT", 0.1)
        with pytest.raises(DirectoryUnavailable):
            await client.get(KEY)
    monkeypatch.setattr(directory_client, "_TOTAL_TIMEOUT", 5.0)
    directory.script.clear()
    assert await client.get(KEY) is not None


async def test_requests_that_hang_take_a_bounded_number_of_connections(
    client: DirectoryClient, directory: ScriptedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.get(KEY)
    monkeypatch.setattr(directory_client, "_TOTAL_TIMEOUT", 0.1)
    directory.always = lambda _: None
    outcomes = await asyncio.gather(*(client.get(KEY) for _ in range(50)), return_exceptions=True)
    assert {type(each) for each in outcomes} == {DirectoryUnavailable}
    assert directory.most_open <= directory_client._CONNECTIONS
    directory.always = None
    monkeypatch.setattr(directory_client, "_TOTAL_TIMEOUT", 5.0)
    assert await client.get(KEY) is None


async def test_a_directory_that_is_down_is_tried_again_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_directory() as directory:
        client = DirectoryClient(directory.url)
    monkeypatch.setattr(directory_client, "_FAIL_FAST", 60.0)
    for _ in range(2):
        with pytest.raises(DirectoryUnavailable, match="refused"):
            await client.get(KEY)
    client._down_until = 0.0
    async with running_directory(port=int(directory.url.split(":")[2].partition("/")[0])):
        assert await client.get(KEY) is None
    await client.close()
