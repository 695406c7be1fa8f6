"""Redeeming an invitation over a connection: who is let in, under which name, and how each failure ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.credentials.envelope import encode_body
from fastn_p2p_actors.credentials.invitation import build_invitation
from fastn_p2p_actors.network import invitation_exchange as module
from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.admin_messages import SavePeer
from fastn_p2p_actors.network.contacts import invitation_store
from fastn_p2p_actors.network.invitation_exchange import InvitationExchange
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.network.transport.peer_limits import REFUSED_REQUESTS
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_client.errors import (
    DeadlineExceeded,
    InvalidName,
    InvitationRefused,
    P2PError,
    PeerNameTaken,
    PeerUnreachable,
    StorageFailed,
)
from fastn_p2p_client.tickets import Ticket
from tests.support.peer_connections import StubOwner, new_connection, pop_sent
from tests.support.signer import DAY, NOW, Signer
from tests.support.two_daemons import until

ALICE, BOB, CAROL = map(Signer, ("alice", "bob", "carol"))
KEY = bytes(ALICE.key)
SECRET = b"sixteen bytes 16"


def invitation(record: bytes | None = None, signer: Signer = ALICE) -> str:
    """Return the text of an invitation of alice."""
    made = build_invitation(
        KEY, NOW, NOW + 7 * DAY, 1, ("Chat/default",), ALICE.record() if record is None else record, SECRET
    )
    return str(Ticket.of_record(signer.sign_bytes("invitation", encode_body(made))))


class Setup:
    """Exchange of a daemon with one online identity, and a connection to the other daemon.

    Args:
        own: the online identity.
        speaking: identity that is proved over the connection.
    """

    def __init__(self, folder: Path, own: Signer, speaking: Signer) -> None:
        self.now = float(NOW)
        self.book = AddressBook(folder, lambda: self.now)
        self.book.load()
        self.registry = Registry()
        self.own = OnlineIdentity("me", own.key, cast(Any, object()))
        self.own.record = own.record()
        self.registry.add_identity(self.own)
        self.refused: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.added: list[str] = []
        owner = StubOwner({self.own.raw: own.delegation()})
        self.connection = new_connection(owner)
        self.connection.supports_invitations = True
        self.connection.introductions.add(StubOwner().check_introduction(self.connection, speaking.delegation()))
        stub: Any = SimpleNamespace(
            connect=self._connect,
            access_changed=self._nothing,
            record=lambda event, **fields: self.events.append({"event": event, **fields}),
        )
        self.exchange = InvitationExchange(
            registry=self.registry,
            book=self.book,
            router=stub,
            publisher=stub,
            vault=stub,
            sessions=stub,
            audit=stub,
            on_denied=lambda _identity, source: self.refused.append(source),
            on_added=lambda peer: self.added.append(peer.name),
            wall=lambda: self.now,
        )
        owner.on_redeem = self.exchange.on_redeem  # type: ignore[attr-defined]

    async def _connect(self, _target: bytes, _peer: str) -> Any:
        return self.connection

    async def _nothing(self) -> None:
        """Do nothing."""

    def invite(self, uses: int = 1, **options: Any) -> None:
        """Have the own identity invite."""
        self.book.invitations.create(
            self.own.raw, "me", SECRET, bindings=["Chat/default"], uses=uses, expires=NOW + DAY, **options
        )

    def answers(self, **fields: Any) -> list[Any]:
        """Let the other daemon redeem an invitation; return the answers."""
        asked = {"id": 1, "source": bytes(BOB.key), "target": self.own.raw, "secret": SECRET, "name": "bob", **fields}
        pop_sent(self.connection)
        self.connection.handle(wire.RedeemInvitation(**asked), b"")
        return [message for message in pop_sent(self.connection) if isinstance(message, wire.Reply | wire.ErrorReply)]

    def names(self) -> list[str]:
        return [each.name for each in self.book.page("", 100)]


@pytest.fixture
async def inviter(tmp_path: Path) -> Setup:
    """alice invites, and bob speaks over the connection."""
    return Setup(tmp_path, ALICE, BOB)


@pytest.fixture
async def bearer(tmp_path: Path) -> Setup:
    """bob redeems, and alice speaks over the connection."""
    return Setup(tmp_path, BOB, ALICE)


# ── the inviter's daemon ─────────────────────────────────────────────────────────────────────────


async def test_bearer_is_added_with_its_record_and_told_to_the_owner(inviter: Setup) -> None:
    inviter.invite()
    assert inviter.answers(record=BOB.record()) == [wire.Reply(1)]
    assert inviter.answers(record=BOB.record()) == [wire.Reply(1)]
    (peer,) = inviter.book.page("", 10)
    assert (peer.name, peer.key, peer.invited, peer.records.endpoints) == ("bob", BOB.key, True, 1)
    assert [each["event"] for each in inviter.events] == ["invitation-used"], "once"
    assert inviter.refused == []


@pytest.mark.parametrize("record", [b"none", CAROL.record(), BOB.record(expires=NOW - 1, issued=NOW - DAY)])
async def test_bearer_with_a_useless_record_is_added_by_its_key(inviter: Setup, record: bytes) -> None:
    inviter.invite()
    assert inviter.answers(record=record) == [wire.Reply(1)]
    assert inviter.book.by_key(bytes(BOB.key)) is not None
    assert inviter.book.by_key(bytes(CAROL.key)) is None


@pytest.mark.parametrize(
    ("proposed", "given"),
    [
        ("bob", "bob"),
        ("carol", "carol-2"),
        ("me", "me-2"),
        ("offline", "offline-2"),
        ("everyone", "everyone-2"),
        ("peers", "peers-2"),
        ("Not A Name", f"peer-{BOB.key.id52[:6]}"),
        ("", f"peer-{BOB.key.id52[:6]}"),
        (BOB.key.id52, f"peer-{BOB.key.id52[:6]}"),
        ("b" * 64, "b" * 64),
    ],
)
async def test_bearer_gets_no_name_that_means_something_else(inviter: Setup, proposed: str, given: str) -> None:
    inviter.book.add(CAROL.key.id52, "carol")
    inviter.invite(reserved=["me", "offline"])
    assert inviter.answers(name=proposed) == [wire.Reply(1)]
    entry = inviter.book.by_key(bytes(BOB.key))
    assert entry is not None
    assert entry.name == given


async def test_peer_that_the_owner_knows_keeps_name_and_rights(inviter: Setup) -> None:
    inviter.book.add(BOB.key.id52, "robert")
    inviter.invite(petname="friend")
    assert inviter.answers() == [wire.Reply(1)]
    assert inviter.names() == ["robert"]
    assert not inviter.book.page("", 1)[0].invited


async def test_wrong_secret_is_refused_and_pending(inviter: Setup) -> None:
    inviter.invite()
    (refusal,) = inviter.answers(secret=bytes(16))
    assert (refusal.code, refusal.fields["reason"]) == ("invitation-refused", "unknown")
    assert inviter.refused == [bytes(BOB.key)]
    assert inviter.names() == []


async def test_source_that_was_not_proved_is_refused_before_the_secret_is_looked_at(inviter: Setup) -> None:
    inviter.invite()
    (refusal,) = inviter.answers(source=bytes(CAROL.key))
    assert refusal.code != "invitation-refused"
    assert inviter.answers() == [wire.Reply(1)], "its use was not counted"


async def test_malformed_and_misdirected_requests_end_with_their_errors(inviter: Setup) -> None:
    inviter.invite()
    assert [each.code for each in inviter.answers(secret=b"short")] == ["bad-message"]
    assert [each.code for each in inviter.answers(name="n" * 65)] == ["bad-message"]
    assert [each.code for each in inviter.answers(target=bytes(CAROL.key))] == ["peer-offline"]
    assert [each.code for each in inviter.answers(target=b"short")] == ["invalid-key"]
    assert inviter.names() == []


async def test_full_disk_lets_in_nobody(inviter: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    inviter.invite()

    def fail(path: Path, _data: bytes) -> None:
        raise StorageFailed(path=str(path), reason="no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(invitation_store, "write_atomically", fail)
        assert [each.code for each in inviter.answers()] == ["storage-failed"]
    assert inviter.names() == []
    assert bytes(BOB.key) not in inviter.book.invitations
    assert inviter.answers() == [wire.Reply(1)]


async def test_guesses_are_slowed_down_like_every_refused_request(
    inviter: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inviter.connection._owner, "is_known", lambda _: True, raising=False)  # it stays connected
    codes = {
        each.code
        for number in range(2 * int(REFUSED_REQUESTS.endpoint.burst))  # some tokens come back meanwhile
        for each in inviter.answers(id=number, secret=number.to_bytes(16, "big"))
    }
    assert codes == {"invitation-refused", "overloaded"}


# ── the bearer's daemon ──────────────────────────────────────────────────────────────────────────


async def redeem(setup: Setup, text: str, *answers: Any, name: str = "ally") -> Any:
    """Redeem an invitation to which the inviter's daemon answers; return the reply."""
    task = asyncio.ensure_future(setup.exchange.redeem(SavePeer(text, name), Ticket(text)))
    asked: list[wire.RedeemInvitation] = []

    def has_asked() -> bool:
        asked.extend(each for each in pop_sent(setup.connection) if isinstance(each, wire.RedeemInvitation))
        return bool(asked) or task.done()

    await until(has_asked, "the request")
    for answer in answers:
        if isinstance(answer, P2PError):
            setup.connection.handle(wire.ErrorReply(asked[0].id, answer.code, answer.fields()), b"")
        elif answer is None:
            setup.connection.close(0, "ended")
        else:
            setup.connection.handle(wire.Reply(asked[0].id), b"")
    return await task


async def test_inviter_is_added_once_it_has_let_the_bearer_in(bearer: Setup) -> None:
    reply = await redeem(bearer, invitation(), True)
    assert reply.let_in_to == ("Chat/default",)
    assert (reply.peer.name, reply.peer.invited) == ("ally", False)
    assert bearer.added == ["ally"]


async def test_invitation_that_is_older_than_its_record_still_leads_to_its_addresses(bearer: Setup) -> None:
    text = invitation()
    bearer.now += 3 * DAY
    delegation = ALICE.delegation(not_before=NOW + 3 * DAY, not_after=NOW + 4 * DAY)
    bearer.connection.introductions.add(StubOwner().check_introduction(bearer.connection, delegation))
    await redeem(bearer, text, True)
    assert len(bearer.book.records_of(KEY)) == 1


@pytest.mark.parametrize("reason", ["expired", "used-up", "revoked", "unknown", "\x1b[31mred"])
async def test_refusals_are_told_and_leave_nothing_behind(bearer: Setup, reason: str) -> None:
    with pytest.raises(InvitationRefused) as refused:
        await redeem(bearer, invitation(), InvitationRefused(peer="\x1b", reason=reason))
    assert (refused.value.peer, refused.value.reason) == (ALICE.key.id52, reason)
    assert "\x1b" not in str(refused.value)
    assert "fastn-p2p invite" in str(refused.value)
    assert bearer.names() == []


async def test_older_daemon_is_not_asked(bearer: Setup) -> None:
    bearer.connection.supports_invitations = False
    with pytest.raises(InvitationRefused, match="older than invitations, and has to be updated") as refused:
        await redeem(bearer, invitation())
    assert refused.value.reason == "unsupported"
    assert bearer.names() == []


async def test_lost_connection_and_silence_end_with_errors_to_retry(
    bearer: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "ANSWER_SECONDS", 0.01)
        with pytest.raises(DeadlineExceeded):
            await redeem(bearer, invitation())
    with pytest.raises(PeerUnreachable, match="Try again"):
        await redeem(bearer, invitation(), None)
    assert bearer.names() == []


async def test_a_mistake_of_this_side_is_found_before_a_use_is_spent(bearer: Setup) -> None:
    bearer.book.add(CAROL.key.id52, "ally")
    with pytest.raises(PeerNameTaken):
        await redeem(bearer, invitation())
    with pytest.raises(InvalidName):
        await redeem(bearer, invitation(), name="not a name")
    bearer.now += 30 * DAY
    with pytest.raises(InvitationRefused) as refused:
        await redeem(bearer, invitation(), name="alice")
    assert refused.value.reason == "expired"
    own = OnlineIdentity("alice", ALICE.key, cast(Any, object()))
    bearer.registry.add_identity(own)
    with pytest.raises(P2PError):
        await redeem(bearer, invitation(), name="alice")
    assert bearer.names() == ["ally"]
    assert not any(isinstance(each, wire.RedeemInvitation) for each in pop_sent(bearer.connection))
