"""Pairing of two real daemons. The two sides run in the test's process, as they do in that of the command."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from fastn_p2p_actors.credentials import meeting_key
from fastn_p2p_actors.credentials.meeting_key import ENDED, MeetingKey, MeetingRecord
from fastn_p2p_actors.network.transport.endpoint import EndpointAddress, NetworkEndpoint
from fastn_p2p_actors.network.transport.message_channel import ChannelClosed, QuicChannel
from fastn_p2p_actors.pairing import host as host_module
from fastn_p2p_actors.pairing import joiner as joiner_module
from fastn_p2p_actors.pairing.code import meeting_words, new_code
from fastn_p2p_actors.pairing.exchange import Exchange
from fastn_p2p_actors.pairing.pairing_book import OwnIdentity, PairingBook, StoredPeer, reason_for_peer
from fastn_p2p_actors.pairing.pairing_endpoint import ALPN
from fastn_p2p_actors.pairing.pairing_errors import (
    CodeExpired,
    CodeNotFound,
    CodeUsedTwice,
    NameInUse,
    NoRendezvous,
    PairingError,
    PeerEnded,
    PeerRefused,
    SameIdentity,
    WrongCode,
)
from fastn_p2p_actors.pairing.rendezvous import NetworkUse, RendezvousSet
from fastn_p2p_actors.pairing.result import PairedPeer
from fastn_p2p_client.errors import IdentityOffline, InvalidName, PeerBlocked, PeerNameTaken, StorageFailed
from fastn_p2p_client.ipc.messages import (
    AddPeer,
    AddProtocol,
    BlockPeer,
    CreateInvitation,
    GetTicket,
    ListPeers,
    RemovePeer,
    UnblockPeer,
)
from fastn_p2p_client.tickets import Ticket
from tests.support.directories import running_directory
from tests.support.pairings import LOCAL, LONG, ShownCode, join, pair_both, peers
from tests.support.two_daemons import TwoDaemons, start_two_daemons

SOMEBODY = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons(echo=False) as made:
        made.two.identity("carol", echo=False)
        made.one.identity("offline", online=False, echo=False)
        yield made


@pytest.fixture(autouse=True)
def environment(daemons: TwoDaemons, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both sides look into the host directory of the daemons. Each test leaves no record there, and no peer.

    Keys of words cost little here; ``test_pair_command`` pays for them.
    """
    monkeypatch.setattr(meeting_key, "MEMORY_BYTES", 64 * 1024)
    monkeypatch.setenv("FASTN_HOST_DIRECTORY", daemons.one.env["FASTN_HOST_DIRECTORY"])
    yield
    assert [path.name for path in hosts(daemons).glob("pairing-*")] == []
    for daemon in (daemons.one, daemons.two):
        with daemon.client() as client:
            for name in peers(daemon):
                client.control(RemovePeer(name))


def hosts(daemons: TwoDaemons) -> Path:
    return Path(daemons.one.env["FASTN_HOST_DIRECTORY"])


def ticket_of_bob(daemons: TwoDaemons) -> str:
    with daemons.two.client() as client:
        return client.control(GetTicket("bob")).ticket


async def test_both_address_books_hold_the_other_under_its_owner_s_name(daemons: TwoDaemons) -> None:
    host, joiner = await pair_both(daemons)
    assert isinstance(host, PairedPeer)
    assert isinstance(joiner, PairedPeer)
    assert (host.name, host.id52, host.updated) == ("bob", daemons.bob, False)
    assert (joiner.name, joiner.id52, joiner.updated) == ("alice", daemons.alice, False)
    assert host.fingerprint == joiner.fingerprint
    assert peers(daemons.one) == {"bob": daemons.bob}
    assert peers(daemons.two) == {"alice": daemons.alice}


async def test_a_name_of_one_s_own_choice_replaces_the_owner_s(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code, name="robert").wait()
    await asyncio.gather(shown.task, join(daemons.two, code, name="alicia"))
    assert peers(daemons.one) == {"robert": daemons.bob}
    assert peers(daemons.two) == {"alicia": daemons.alice}


async def test_a_known_peer_is_updated_and_its_old_name_is_told(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        client.control(AddPeer(daemons.bob, "bobby"))
    with daemons.two.client() as client:
        client.control(AddPeer(daemons.alice, "alice"))
    host, joiner = await pair_both(daemons)
    assert isinstance(host, PairedPeer)
    assert isinstance(joiner, PairedPeer)
    assert (host.renamed_from, host.updated) == ("bobby", True)
    assert (joiner.renamed_from, joiner.updated) == ("", True)
    assert peers(daemons.one) == {"bob": daemons.bob}


async def test_other_words_end_both_sides_and_store_nothing(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code).wait()
    typed = code.split()
    typed[3] = "abbey" if typed[3] != "abbey" else "zone"
    results = await asyncio.gather(shown.task, join(daemons.two, " ".join(typed)), return_exceptions=True)
    assert [type(each) for each in results] == [WrongCode, WrongCode]
    assert peers(daemons.one) == peers(daemons.two) == {}


async def test_words_that_no_host_shows_are_not_found_and_spend_no_attempt(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code).wait()
    typed = code.split()
    typed[0] = "abbey" if typed[0] != "abbey" else "zone"
    with pytest.raises(CodeNotFound, match="asked: this machine"):
        await join(daemons.two, " ".join(typed), seconds=0.5)
    await asyncio.gather(shown.task, join(daemons.two, code))
    assert peers(daemons.two) == {"alice": daemons.alice}


async def test_a_third_party_with_the_same_words_is_noticed_by_all(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code, rival_wait=LONG).wait()
    joining = (join(daemons.two, code), join(daemons.two, code, identity="carol"))
    results = await asyncio.gather(shown.task, *joining, return_exceptions=True)
    assert [type(each) for each in results] == [CodeUsedTwice] * 3
    assert peers(daemons.one) == peers(daemons.two) == {}


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_host_notices_a_foreign_record_under_its_words(daemons: TwoDaemons, moment: str) -> None:
    code = new_code()
    key = MeetingKey(meeting_words(code), datetime.now(UTC).date())
    liar = RendezvousSet(LOCAL, bytes(32))
    record = MeetingRecord.open_at(bytes(32), (), ("127.0.0.1:9",))
    with mock.patch.object(host_module, "_CHECK", 0.01):
        if moment == "before":
            await liar.publish(key, record)
        shown = await ShownCode(daemons.one, code).wait()
        if moment == "after":
            await liar.publish(key, record)
        with pytest.raises(CodeUsedTwice, match="Another daemon publishes"):
            await shown.task
    await liar.remove(key, MeetingRecord.closed(ENDED))


async def test_a_joiner_that_finds_two_hosts_shows_its_words_to_neither(daemons: TwoDaemons) -> None:
    code = new_code()
    key = MeetingKey(meeting_words(code), datetime.now(UTC).date())
    liars = [RendezvousSet(LOCAL, bytes((number,)) * 32) for number in (1, 2)]
    for number, rendezvous in zip((1, 2), liars, strict=True):
        await rendezvous.publish(key, MeetingRecord.open_at(bytes((number,)) * 32, (), ("127.0.0.1:9",)))
    with pytest.raises(CodeUsedTwice, match="Two daemons show"):
        await join(daemons.two, code)
    for rendezvous in liars:
        await rendezvous.remove(key, MeetingRecord.closed(ENDED))
    assert peers(daemons.two) == {}


async def test_words_are_good_for_one_use(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code).wait()
    await asyncio.gather(shown.task, join(daemons.two, code))
    with pytest.raises(CodeNotFound):
        await join(daemons.two, code, identity="carol", seconds=0.5)
    assert peers(daemons.one) == {"bob": daemons.bob}


async def test_words_that_are_not_typed_expire(daemons: TwoDaemons) -> None:
    shown = ShownCode(daemons.one, new_code(), seconds=0.1)
    with pytest.raises(CodeExpired, match="No daemon typed the words within"):
        await shown.task


async def test_a_host_that_is_interrupted_tells_the_joiner(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code, rival_wait=LONG).wait()
    joining = asyncio.create_task(join(daemons.two, code))
    await asyncio.wait_for(shown.proved.wait(), LONG)
    shown.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await shown.task
    with pytest.raises(PeerEnded):
        await joining
    assert peers(daemons.one) == peers(daemons.two) == {}


async def test_a_joiner_that_is_interrupted_ends_the_host(daemons: TwoDaemons) -> None:
    code = new_code()
    with mock.patch.object(PairingBook, "store", side_effect=asyncio.CancelledError):
        shown = await ShownCode(daemons.one, code).wait()
        results = await asyncio.gather(shown.task, join(daemons.two, code), return_exceptions=True)
    assert [type(each) for each in results] == [PeerEnded, asyncio.CancelledError]
    assert peers(daemons.one) == peers(daemons.two) == {}


async def interrupt_while_storing(daemons: TwoDaemons, side: str) -> None:
    """Pair alice with bob, and interrupt one side while its daemon stores the other. Both fail."""
    store, stored, go_on = PairingBook._store, asyncio.Event(), asyncio.Event()
    code = new_code()
    own = "bob" if side == "host" else "alice"

    async def slow(book: PairingBook, identity: OwnIdentity, name: str, ticket: Ticket) -> StoredPeer:
        result = await store(book, identity, name, ticket)
        if name == own:
            stored.set()
            await go_on.wait()
        return result

    with mock.patch.object(PairingBook, "_store", slow):
        shown = await ShownCode(daemons.one, code).wait()
        joining = asyncio.create_task(join(daemons.two, code))
        await asyncio.wait_for(stored.wait(), LONG)
        interrupted, other = (shown.task, joining) if side == "host" else (joining, shown.task)
        interrupted.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        results = await asyncio.gather(interrupted, other, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError, PeerEnded]


@pytest.mark.parametrize("side", ["host", "joiner"])
async def test_an_interruption_while_the_daemon_stores_the_peer_takes_it_back(daemons: TwoDaemons, side: str) -> None:
    await interrupt_while_storing(daemons, side)
    assert peers(daemons.one) == peers(daemons.two) == {}


async def test_a_bearer_of_an_invitation_is_a_peer_like_others_once_it_is_paired(daemons: TwoDaemons) -> None:
    with daemons.one.client() as one, daemons.two.client() as two:
        ticket = one.control(CreateInvitation("alice", ("Echo",))).ticket
        two.control(AddPeer(ticket, "alice", identity="bob"), timeout=LONG)
        for side in ("host", "joiner"):
            await interrupt_while_storing(daemons, side)
            assert [each.invited for each in one.control(ListPeers()).peers] == [True]
        await pair_both(daemons)
        assert [each.invited for each in one.control(ListPeers()).peers] == [False]


@pytest.mark.parametrize("side", ["host", "joiner"])
async def test_a_name_that_another_peer_has_stops_both_sides(daemons: TwoDaemons, side: str) -> None:
    daemon, name = (daemons.one, "bob") if side == "host" else (daemons.two, "alice")
    with daemon.client() as client:
        client.control(AddPeer(SOMEBODY, name))
    host, joiner = await pair_both(daemons)
    own, other = (host, joiner) if side == "host" else (joiner, host)
    assert isinstance(own, PeerNameTaken)
    assert isinstance(other, PeerRefused)
    assert "--name NAME" in str(other)
    assert peers(daemon) == {name: SOMEBODY}
    assert peers(daemons.two if daemon is daemons.one else daemons.one) == {}


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("offline", "an identity of this daemon"),
        ("zoe", "in the access list of alice/Echo/for-zoe"),
        ("peers", "a word of access lists"),
    ],
)
async def test_the_other_side_cannot_choose_a_name_that_means_something_else_here(
    daemons: TwoDaemons, name: str, use: str
) -> None:
    """Calls to an own identity would go to it, or it would get the access of a peer that is no longer there."""
    with daemons.one.client() as client:
        if name == "zoe":
            client.control(AddPeer(SOMEBODY, "zoe"))
            client.control(AddProtocol("alice", "Echo", "for-zoe", ("zoe",)))
            client.control(RemovePeer("zoe"))
    book = PairingBook(daemons.one.home, "")
    own = await book.own_identity("alice")
    bob = ticket_of_bob(daemons)
    with pytest.raises(NameInUse, match=use) as caught:
        await book.check(own, name, bob)
    assert use not in reason_for_peer(caught.value)
    await PairingBook(daemons.one.home, name).check(own, "bob", bob)


async def test_a_blocked_identity_is_not_paired_and_does_not_learn_why(daemons: TwoDaemons) -> None:
    book = PairingBook(daemons.one.home, "")
    own = await book.own_identity("alice")
    with daemons.one.client() as client:
        client.control(BlockPeer(daemons.bob))
        try:
            with pytest.raises(PeerBlocked, match="peer unblock") as caught:
                await book.check(own, "bob", ticket_of_bob(daemons))
        finally:
            client.control(UnblockPeer(daemons.bob))
    assert "block" not in reason_for_peer(caught.value)


async def test_an_interruption_after_the_last_message_does_not_undo_one_side(daemons: TwoDaemons) -> None:
    code = new_code()
    waiting = asyncio.Event()

    async def wait_closed(_: Exchange) -> None:
        waiting.set()
        await asyncio.Event().wait()

    with mock.patch.object(Exchange, "wait_closed", wait_closed):
        shown = await ShownCode(daemons.one, code).wait()
        joining = asyncio.create_task(join(daemons.two, code))
        await asyncio.wait_for(waiting.wait(), LONG)
        shown.task.cancel()
        results = await asyncio.gather(shown.task, joining)
    assert [each.name for each in results] == ["bob", "alice"]
    assert (peers(daemons.one), peers(daemons.two)) == ({"bob": daemons.bob}, {"alice": daemons.alice})


async def test_an_unexpected_error_ends_both_sides(daemons: TwoDaemons) -> None:
    with mock.patch.object(PairingBook, "check", side_effect=RuntimeError("a bug")):
        host, joiner = await pair_both(daemons)
    assert isinstance(host, RuntimeError)
    assert isinstance(joiner, PeerEnded)
    assert peers(daemons.one) == peers(daemons.two) == {}


async def test_a_name_that_no_peer_can_have_is_refused(daemons: TwoDaemons) -> None:
    with pytest.raises(InvalidName):
        ShownCode(daemons.one, new_code(), name="Not A Name")
    with pytest.raises(InvalidName):
        await join(daemons.two, new_code(), name="Not A Name")


async def test_an_identity_does_not_pair_with_itself(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code).wait()
    joining = join(daemons.one, code, identity="alice")
    results = await asyncio.gather(shown.task, joining, return_exceptions=True)
    assert [type(each) for each in results] == [SameIdentity, SameIdentity]
    assert peers(daemons.one) == {}


async def test_pairings_do_not_disturb_each_other(daemons: TwoDaemons) -> None:
    codes = [new_code(), new_code()]
    first = await ShownCode(daemons.one, codes[0]).wait()
    second = await ShownCode(daemons.two, codes[1], identity="carol").wait()
    await asyncio.gather(
        first.task, second.task, join(daemons.two, codes[0]), join(daemons.one, codes[1], identity="alice")
    )
    assert set(peers(daemons.one)) == {"bob", "carol"}
    assert set(peers(daemons.two)) == {"alice"}


async def test_a_newer_record_that_came_from_elsewhere_is_kept(daemons: TwoDaemons) -> None:
    """For instance from another pairing of the same two daemons."""
    book = PairingBook(daemons.one.home, "")
    own = await book.own_identity("alice")
    older, newer = Ticket(ticket_of_bob(daemons)), ticket_of_bob(daemons)
    assert str(older) != newer
    with daemons.one.client() as client:
        client.control(AddPeer(newer, "bob"))
    stored = await book.store(own, "bob", older)
    assert (stored.name, stored.id52, stored.is_new) == ("bob", daemons.bob, False)


async def test_an_identity_that_is_offline_is_told_at_once(daemons: TwoDaemons) -> None:
    with pytest.raises(IdentityOffline):
        await join(daemons.one, new_code(), identity="offline")


async def test_a_failure_of_the_joiner_s_daemon_leaves_the_host_s_book_alone(daemons: TwoDaemons) -> None:
    """The joiner stores first. A peer that it cannot store, the host does not store either."""
    failure = StorageFailed(path="peers/alice.json", reason="No space left on device")
    with mock.patch.object(PairingBook, "store", side_effect=failure):
        host, joiner = await pair_both(daemons)
    assert isinstance(joiner, StorageFailed)
    assert isinstance(host, PeerRefused)
    assert peers(daemons.one) == {}


async def test_clocks_may_differ_around_midnight(daemons: TwoDaemons) -> None:
    """The joiner's clock is a day behind, so it derives the host's key as the last one."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Later:
            return cls.fromtimestamp((datetime.now(UTC) + timedelta(days=-1)).timestamp(), UTC)

    with mock.patch.object(joiner_module, "datetime", Later):
        host, _ = await pair_both(daemons)
    assert isinstance(host, PairedPeer)


async def test_garbage_at_the_host_s_endpoint_is_no_attempt(daemons: TwoDaemons) -> None:
    code = new_code()
    shown = await ShownCode(daemons.one, code).wait()
    record = await _record_of(code)
    endpoint = await NetworkEndpoint.bind(os.urandom(32), "local", None, alpn=ALPN)
    address = EndpointAddress(record.endpoint, record.relays, record.addresses)
    for message in (b"", b"x" * 33, b"B" * 33):
        channel = await QuicChannel.dial(endpoint, address)
        await channel.send(message)
        if message != b"B" * 33:  # that is a point of the curve, perhaps: the host answers, and goes on waiting
            with pytest.raises(ChannelClosed):
                await channel.receive()
        channel.close()
    await endpoint.close()
    await asyncio.gather(shown.task, join(daemons.two, code))
    assert peers(daemons.one) == {"bob": daemons.bob}


async def _record_of(code: str) -> MeetingRecord:
    found: list[MeetingRecord] = []
    rendezvous = RendezvousSet(LOCAL, bytes(32))
    today: date = datetime.now(UTC).date()
    await rendezvous.search(await asyncio.to_thread(MeetingKey, meeting_words(code), today), found.append)
    await rendezvous.close()
    return found[0]


async def test_a_record_whose_host_was_killed_does_not_answer(daemons: TwoDaemons) -> None:
    code = new_code()
    key = MeetingKey(meeting_words(code), datetime.now(UTC).date())
    gone = await NetworkEndpoint.bind(os.urandom(32), "local", None, alpn=ALPN)
    address = gone.address()
    await gone.close()
    rendezvous = RendezvousSet(LOCAL, gone.id)
    await rendezvous.publish(key, MeetingRecord.open_at(gone.id, (), address.addresses))
    with (
        pytest.raises(PeerEnded, match="does not answer"),
        mock.patch("fastn_p2p_actors.network.transport.endpoint._HANDSHAKE_TIMEOUT", 0.5),
    ):
        await join(daemons.two, code)
    old = next(hosts(daemons).glob("pairing-*"))
    os.utime(old, (0, 0))
    RendezvousSet(LOCAL, bytes(32))
    assert not old.exists(), "the next pairing removes what a killed one has left"


async def test_a_directory_alone_is_enough_and_keeps_no_address(
    daemons: TwoDaemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = new_code()
    with running_directory(tmp_path / "packets.sqlite") as directory:
        use = NetworkUse(mode="local", directories=(directory.url,))
        shown = await ShownCode(daemons.one, code, use=use).wait()
        assert shown.sources == ["this machine", directory.url]
        monkeypatch.setenv("FASTN_HOST_DIRECTORY", str(tmp_path / "elsewhere"))
        await asyncio.gather(shown.task, join(daemons.two, code, use=use))
        with pytest.raises(CodeUsedTwice, match="used already"):
            await join(daemons.two, code, use=use, identity="carol")
    assert peers(daemons.one) == {"bob": daemons.bob}


async def test_a_directory_that_does_not_answer_is_named(daemons: TwoDaemons) -> None:
    use = NetworkUse(mode="local", directories=("http://127.0.0.1:9/pkarr",))
    shown = await ShownCode(daemons.one, new_code(), use=use).wait()
    assert set(shown.problems) == {"http://127.0.0.1:9/pkarr"}
    shown.task.cancel()
    await asyncio.wait([shown.task])


async def test_without_lan_and_directory_both_sides_say_how_to_go_on(daemons: TwoDaemons) -> None:
    use = NetworkUse(mode="internet")
    for work in (ShownCode(daemons.one, new_code(), use=use).task, join(daemons.two, new_code(), use=use)):
        with pytest.raises(NoRendezvous, match=r"network\.lan.*network\.directories.*ticket"):
            await work


def test_every_error_has_an_exit_code() -> None:
    from fastn_p2p.console.exit_codes import EXITS, PAIRING_EXITS

    assert {cls.code for cls in PairingError.__subclasses__()} == set(PAIRING_EXITS)
    assert not set(PAIRING_EXITS) & set(EXITS)
