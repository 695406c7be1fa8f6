"""Publishing to one directory and searching it: caches, retries, limits, and other daemons' packets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastn_p2p_actors.credentials.pkarr import SignedPacket, encode_key
from fastn_p2p_actors.network.discovery import directory_source
from fastn_p2p_actors.network.discovery.directory_client import DirectoryClient, DirectoryUnavailable
from fastn_p2p_actors.network.discovery.directory_source import DirectorySource
from fastn_p2p_actors.network.discovery.record_source import PublishedIdentity
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
from fastn_p2p_client.errors import BadMessage
from fastn_p2p_client.retry import Backoff
from tests.support.scripted_directory import ScriptedDirectory, answer_with, running_directory
from tests.support.signer import NOW, Signer

BOB = Signer("bob")
KEY = bytes(BOB.key)
SENDER: Any = None


@pytest.fixture
async def directory() -> AsyncIterator[ScriptedDirectory]:
    async with running_directory() as server:
        yield server


class Publishing:
    """A source of one directory, and the packets that it reported as newer."""

    def __init__(self, url: str) -> None:
        self.newer: list[SignedPacket] = []
        self.reported = asyncio.Event()
        self.adopt = False
        self.present: list[bytes] = []
        self.is_merged_later = False
        self.source = DirectorySource(DirectoryClient(url), lambda: float(NOW), self.on_newer, self.on_present)

    def on_newer(self, identity: PublishedIdentity, packet: SignedPacket) -> bool:
        self.newer.append(packet)
        self.reported.set()
        return self.adopt

    def on_present(self, identity: PublishedIdentity, record: bytes) -> bool:
        self.present.append(record)
        return self.is_merged_later

    def publish(self, sequence: int, signer: Signer = BOB, *, after_reading: bool = True) -> OnlineIdentity:
        if after_reading:
            self.source._keep(bytes(signer.key), None)
        identity = OnlineIdentity("bob", signer.key, SENDER)
        identity.packet = signer.packet(b"record %d" % sequence, sequence)
        self.source.publish(identity)
        return identity

    async def found(self) -> list[bytes]:
        records: list[bytes] = []
        await self.source.search(KEY, records.append)
        return records

    async def idle(self) -> None:
        """Wait until nothing is to be published."""
        assert self.source._worker is not None
        async with asyncio.timeout(50):
            await asyncio.wait([self.source._worker])


@pytest.fixture
async def publishing(directory: ScriptedDirectory) -> AsyncIterator[Publishing]:
    made = Publishing(directory.url)
    yield made
    made.source.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_source, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(directory_source, "_LONGEST_DELAY", 0.02)
    monkeypatch.setattr(directory_source, "_READ_BACK", (0.01, 0.02))


def always_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_source, "_KNOWN_FOR", 0.0)
    monkeypatch.setattr(directory_source, "_UNKNOWN_FOR", 0.0)


async def test_a_published_packet_is_found(publishing: Publishing, directory: ScriptedDirectory) -> None:
    identity = publishing.publish(1)
    await publishing.idle()
    assert await publishing.found() == [b"record 1"]
    assert identity.publications[directory.url].published == NOW
    assert not identity.publications[directory.url].problem


async def test_answers_are_kept_for_a_while(publishing: Publishing, directory: ScriptedDirectory) -> None:
    assert await publishing.found() == []
    directory.packets[KEY] = BOB.packet(b"late", 1)
    assert await publishing.found() == []
    assert len(directory.requests) == 1
    publishing.publish(2)
    await publishing.idle()
    assert [await publishing.found() for _ in range(3)] == [[b"record 2"]] * 3
    assert [each.method for each in directory.requests] == ["GET", "PUT", "GET"]


async def test_an_older_packet_than_before_is_a_lie(
    publishing: Publishing, directory: ScriptedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_ask(monkeypatch)
    directory.packets[KEY] = BOB.packet(b"new", 9)
    assert await publishing.found() == [b"new"]
    directory.packets[KEY] = BOB.packet(b"old", 8)
    with pytest.raises(DirectoryUnavailable, match="older"):
        await publishing.found()
    directory.packets[KEY] = BOB.packet(b"newer", 10)
    assert await publishing.found() == [b"newer"]


async def test_a_withdrawn_record_is_none(publishing: Publishing, directory: ScriptedDirectory) -> None:
    directory.packets[KEY] = BOB.packet(b"", 1)
    assert await publishing.found() == []


async def test_a_packet_without_our_record_is_a_problem_in_words(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    other = Signer("mallory").packet(b"x", 1)[72:]
    directory.packets[KEY] = BOB.signed_packet(other, 1)
    with pytest.raises(BadMessage, match="0 peer records"):
        await publishing.found()


@pytest.mark.usefixtures("hurried")
async def test_failures_are_retried(publishing: Publishing, directory: ScriptedDirectory) -> None:
    directory.script += [answer_with(500), answer_with(429, Retry_After="0"), lambda writer: writer.transport.abort()]
    identity = publishing.publish(1)
    await publishing.idle()
    assert KEY in directory.packets
    assert not identity.publications[directory.url].problem


@pytest.mark.usefixtures("hurried")
async def test_a_refused_packet_is_not_sent_again(publishing: Publishing, directory: ScriptedDirectory) -> None:
    directory.script.append(answer_with(403, b"not on the list"))
    identity = publishing.publish(1)
    await publishing.idle()
    publication = identity.publications[directory.url]
    assert (publication.published, publication.problem) == (0, "it answered with status 403: not on the list")
    assert len(directory.requests) == 1
    publishing.publish(2)
    await publishing.idle()
    assert directory.packets[KEY] == BOB.packet(b"record 2", 2)


@pytest.mark.usefixtures("hurried")
async def test_a_packet_that_fails_again_and_again_delays_no_other(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    """The directory says of one key that it has a newer packet, and shows none."""
    directory.script += [answer_with(409), answer_with(404)]
    carol = Signer("carol")
    for signer in (BOB, carol):
        publishing.publish(1, signer)
    await publishing.idle()
    puts = [each.path.rpartition("/")[2] for each in directory.requests if each.method == "PUT"]
    assert puts == [encode_key(bytes(each.key)) for each in (BOB, carol, BOB)]


async def test_all_that_wait_for_a_directory_have_its_problem(
    publishing: Publishing, directory: ScriptedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing.source._backoff, "next_delay", lambda: 600.0)
    directory.always = answer_with(500)
    identities = [publishing.publish(1, Signer(name)) for name in ("bob", "carol", "dave")]
    async with asyncio.timeout(50):
        while not all(directory.url in each.publications for each in identities):  # noqa: ASYNC110  (no event says it)
            await asyncio.sleep(0.005)
    assert {each.publications[directory.url].problem for each in identities} == {"it answered with status 500"}


async def test_a_new_packet_ends_a_pause_after_a_failure(
    publishing: Publishing, directory: ScriptedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing.source._backoff, "next_delay", lambda: 600.0)
    directory.script.append(answer_with(500))
    publishing.publish(1)
    await directory.received(1)
    await asyncio.sleep(0)
    publishing.publish(2)
    await publishing.idle()
    assert directory.packets[KEY] == BOB.packet(b"record 2", 2)


async def test_delays_are_short_again_after_a_new_packet(
    publishing: Publishing, directory: ScriptedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hours without a network, the directory need not answer the very first attempt."""
    backoff, delays = publishing.source._backoff, list[float]()

    def next_delay() -> float:
        delays.append(Backoff.next_delay(backoff))
        return 600.0

    monkeypatch.setattr(backoff, "next_delay", next_delay)
    for number in range(1, 7):
        directory.script.append(answer_with(500))
        publishing.publish(number)
        await directory.received(number)
        await asyncio.sleep(0)
    assert len(delays) >= 5
    assert max(delays) <= directory_source._FIRST_DELAY


async def test_only_the_newest_packet_of_an_identity_waits(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    others = [Signer(f"other {number}") for number in range(20)]
    for number in range(1, 11):
        publishing.publish(number)
        for other in others:
            publishing.publish(number, other)
    await publishing.idle()
    assert len(directory.packets) == 21
    assert len(directory.requests) <= 22


async def test_a_packet_that_was_not_read_is_read_before_it_is_replaced(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    directory.packets[KEY] = BOB.packet(b"with another endpoint", 1)
    publishing.is_merged_later = True
    publishing.publish(2, after_reading=False)
    await publishing.idle()
    assert publishing.present == [b"with another endpoint"]
    assert [each.method for each in directory.requests] == ["GET"]
    publishing.publish(3, after_reading=False)  # with that endpoint, too
    await publishing.idle()
    assert [each.method for each in directory.requests] == ["GET", "PUT"]


async def test_a_packet_that_was_just_read_is_replaced_at_once(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    directory.packets[KEY] = BOB.packet(b"old", 1)
    assert await publishing.found() == [b"old"]
    publishing.publish(2, after_reading=False)
    await publishing.idle()
    assert [each.method for each in directory.requests] == ["GET", "PUT"]
    assert publishing.present == []


@pytest.mark.usefixtures("hurried")
async def test_nothing_is_replaced_while_it_cannot_be_read(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    directory.packets[KEY] = BOB.packet(b"with another endpoint", 1)
    directory.script += [answer_with(500), answer_with(500)]
    publishing.publish(2, after_reading=False)
    await publishing.idle()
    assert [each.method for each in directory.requests] == ["GET", "GET", "GET", "PUT"]


async def test_a_useless_packet_is_replaced(publishing: Publishing, directory: ScriptedDirectory) -> None:
    directory.packets[KEY] = BOB.signed_packet(Signer("mallory").packet(b"x", 1)[72:], 1)
    identity = publishing.publish(2, after_reading=False)
    await publishing.idle()
    assert directory.packets[KEY] == identity.packet


@pytest.mark.usefixtures("hurried")
async def test_another_daemons_packet_is_reported(publishing: Publishing, directory: ScriptedDirectory) -> None:
    directory.packets[KEY] = BOB.packet(b"newer", 5)
    identity = publishing.publish(4)
    await publishing.idle()
    assert [each.sequence for each in publishing.newer] == [5]
    assert identity.publications[directory.url].problem
    publishing.publish(6)
    await publishing.idle()
    directory.packets[KEY] = BOB.packet(b"later", 7)  # published by another daemon before this one reads back
    publishing.reported.clear()
    async with asyncio.timeout(50):
        await publishing.reported.wait()
    assert [each.sequence for each in publishing.newer] == [5, 7]


@pytest.mark.usefixtures("hurried")
async def test_a_newer_packet_that_has_this_endpoint_counts_as_published(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    publishing.adopt = True
    directory.packets[KEY] = BOB.packet(b"newer", 5)
    identity = publishing.publish(4)
    await publishing.idle()
    assert identity.publications[directory.url].published == NOW


@pytest.mark.usefixtures("hurried")
async def test_a_directory_that_lies_about_a_newer_packet_gets_no_endless_requests(
    publishing: Publishing, directory: ScriptedDirectory
) -> None:
    identity = publishing.publish(1)
    directory.script += [answer_with(409), answer_with(404), answer_with(409), answer_with(200, BOB.packet(b"", 0))]
    await publishing.idle()
    assert not publishing.newer
    assert not identity.publications[directory.url].problem
    assert [each.method for each in directory.requests[:5]] == ["PUT", "GET", "PUT", "GET", "PUT"]


async def test_a_withdrawal_replaces_what_waits(publishing: Publishing, directory: ScriptedDirectory) -> None:
    identity = publishing.publish(1)
    publishing.source.unpublish(identity)  # nothing was published yet
    await publishing.idle()
    assert not directory.packets
    publishing.source.publish(identity)
    await publishing.idle()
    identity.packet = BOB.packet(b"", 2)
    publishing.source.unpublish(identity)
    await publishing.idle()
    assert directory.packets[KEY] == identity.packet
    assert not identity.publications
