"""Invitations of a daemon: never one bearer too many, whatever happens, and nothing for those who know no secret."""

from __future__ import annotations

import hmac
import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from nacl.signing import SigningKey

from fastn_p2p_actors.network.address_book import AddressBook
from fastn_p2p_actors.network.contacts import invitation_store as module
from fastn_p2p_actors.network.contacts.invitation_store import InvitationStore
from fastn_p2p_actors.network.serving.access_list import AccessList
from fastn_p2p_actors.network.serving.registry import OnlineIdentity, Registry
from fastn_p2p_actors.storage import atomic_files
from fastn_p2p_client.errors import InvitationNotFound, InvitationRefused, Overloaded, StorageFailed
from fastn_p2p_client.keys import PublicKey, id52_of

ALICE, OTHER, BOB, CAROL, EVE = (bytes(SigningKey(bytes([number]) * 32).verify_key) for number in range(1, 6))
NOW = 1_800_000_000
SECRET = b"sixteen bytes 16"


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(tmp_path: Path, clock: Clock) -> InvitationStore:
    return InvitationStore(tmp_path / ".invitations.json", clock)


def create(known: InvitationStore, secret: bytes = SECRET, **changes: Any) -> str:
    options = {"bindings": ("Chat/default",), "uses": 1, "expires": NOW + 3600, **changes}
    return known.create(ALICE, "alice", secret, **options).id


def refusal(known: InvitationStore, bearer: bytes, secret: bytes = SECRET, identity: bytes = ALICE) -> str:
    with pytest.raises(InvitationRefused) as refused:
        known.redeem(identity, secret, bearer)
    assert refused.value.peer == id52_of(identity)
    return refused.value.reason


def reloaded(known: InvitationStore, clock: Clock) -> InvitationStore:
    again = InvitationStore(known._path, clock)
    assert again.load() == ""
    return again


def test_bearers_are_let_in_until_the_uses_are_used_up(known: InvitationStore, clock: Clock) -> None:
    create(known, uses=2)
    assert [known.redeem(ALICE, SECRET, bearer).uses_left for bearer in (BOB, CAROL)] == [1, 0]
    again = known.redeem(ALICE, SECRET, BOB)
    assert (again.is_new, again.uses_left) == (False, 0), "a bearer that repeats its request counts once"
    assert refusal(known, EVE) == "used-up"
    after = reloaded(known, clock)
    assert refusal(after, EVE) == "used-up"
    assert not after.redeem(ALICE, SECRET, CAROL).is_new


def test_reasons_are_told_to_those_who_know_the_secret_only(known: InvitationStore, clock: Clock) -> None:
    id = create(known)
    assert refusal(known, BOB, b"another 16 bytes") == "unknown"
    assert refusal(known, BOB, identity=OTHER) == "unknown"
    clock.now += 3600
    assert refusal(known, BOB) == "expired"
    known.revoke(id, access=False)
    assert refusal(known, BOB) == "revoked"
    assert refusal(known, BOB, b"another 16 bytes") == "unknown"


def test_every_attempt_compares_a_hash_in_constant_time(
    known: InvitationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def compare(known_hash: bytes, given: bytes) -> bool:
        compared.append((len(known_hash), len(given)))
        return original(known_hash, given)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    create(known)
    known.redeem(ALICE, SECRET, BOB)
    refusal(known, EVE, b"another 16 bytes")
    refusal(known, EVE, identity=OTHER)
    assert compared == [(32, 32)] * 3, "also if there is nothing to compare with"


def test_file_has_no_secret(known: InvitationStore) -> None:
    create(known)
    content = known._path.read_bytes()
    assert SECRET not in content
    assert SECRET.hex().encode() not in content
    assert known._path.stat().st_mode & 0o777 == 0o600


def test_crash_around_the_write_lets_in_nobody_twice_and_loses_nobody(
    known: InvitationStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write either happens or does not. After each, a restart and the retry of any bearer end at one use."""
    create(known)
    write = atomic_files.write_atomically

    def fail(path: Path, _data: bytes) -> None:
        raise StorageFailed(path=str(path), reason="no space left on device")

    def write_and_crash(path: Path, data: bytes) -> None:
        write(path, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_atomically", fail)
    with pytest.raises(StorageFailed):
        known.redeem(ALICE, SECRET, BOB)
    assert BOB not in known, "no permission that a restart would forget"
    monkeypatch.setattr(module, "write_atomically", write_and_crash)
    with pytest.raises(KeyboardInterrupt):
        known.redeem(ALICE, SECRET, CAROL)
    monkeypatch.setattr(module, "write_atomically", write)
    after = reloaded(known, clock)
    assert refusal(after, BOB) == "used-up"
    assert not after.redeem(ALICE, SECRET, CAROL).is_new, "its answer was lost, and its permission was not"


def test_any_order_of_two_bearers_and_their_retries_lets_in_one(tmp_path: Path, clock: Clock) -> None:
    for order in itertools.permutations([BOB, BOB, CAROL, CAROL]):
        made = InvitationStore(tmp_path / "one.json", clock)
        create(made)
        for bearer in order:
            with suppress(InvitationRefused):
                made.redeem(ALICE, SECRET, bearer)
        assert [key in made for key in (order[0], *{BOB, CAROL} - {order[0]})] == [True, False]


def test_damaged_file_lets_in_nobody_and_says_so(known: InvitationStore, clock: Clock) -> None:
    create(known)
    known.redeem(ALICE, SECRET, BOB)
    whole = known._path.read_bytes()
    saved = json.loads(whole)
    saved["invitations"][0]["bearers"][0]["id52"] = "nobody"
    for content in (whole[:-1], b"[]", b"\xff", json.dumps(saved).encode()):
        known._path.write_bytes(content)
        again = InvitationStore(known._path, clock)
        assert "damaged" in again.load()
        assert BOB not in again
        assert refusal(again, CAROL) == "unknown"


def test_removed_bearer_stays_out_and_a_successor_comes_in(known: InvitationStore, clock: Clock) -> None:
    create(known, uses=5)
    known.redeem(ALICE, SECRET, BOB)
    known.redeem(ALICE, SECRET, CAROL)
    known.remove_bearer(BOB)
    assert BOB not in known
    assert refusal(known, BOB) == "revoked"
    known.replace_bearer(CAROL, EVE)
    assert CAROL not in known
    assert not known.redeem(ALICE, SECRET, EVE).is_new
    after = reloaded(known, clock)
    assert [key in after for key in (BOB, CAROL, EVE)] == [False, False, True]


def test_removed_binding_and_identity_are_opened_no_more(known: InvitationStore) -> None:
    create(known, bindings=("Chat/default", "Mail/default"))
    create(known, b"the second of 16", bindings=("Chat/default",))
    known.redeem(ALICE, SECRET, BOB)
    known.remove_binding("alice", "Chat", "default")
    (left,) = known.infos("", lambda _: "")
    assert left.bindings == ["Mail/default"]
    assert known.find_permission(BOB, "alice", ALICE, "Chat", "default") == ""
    assert known.find_permission(BOB, "alice", ALICE, "Mail", "default") == left.id
    assert known.find_permission(BOB, "alice", OTHER, "Mail", "default") == "", "another identity of this name"
    known.remove_binding("alice")
    assert len(known) == 0
    assert BOB not in known


def test_invitations_are_named_by_the_beginning_of_their_ids(known: InvitationStore) -> None:
    id = create(known)
    for wrong in (id[:3], "", "zzzz", id + "x"):
        with pytest.raises(InvitationNotFound):
            known.revoke(wrong, access=False)
    assert known.revoke(id[:4], access=False) == id


def test_limits_count_what_is_kept(known: InvitationStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_INVITATIONS", 2)
    monkeypatch.setattr(module, "MAX_BEARERS", 10)
    create(known, b"1" * 16, uses=8)
    with pytest.raises(Overloaded):
        create(known, b"2" * 16, uses=3)
    create(known, b"3" * 16, uses=2)
    with pytest.raises(Overloaded):
        create(known, b"4" * 16)
    known.redeem(ALICE, b"1" * 16, BOB)
    clock.now += 3600 + module.KEPT_SECONDS
    create(known, b"5" * 16, uses=9, expires=int(clock.now) + 3600)
    assert BOB in known, "an invitation that has let somebody in is kept"
    assert refusal(known, CAROL, b"3" * 16) == "unknown", "one that has not is forgotten a month after its end"


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> AddressBook:
    made = AddressBook(tmp_path, clock)
    made.load()
    create(made.invitations)
    return made


def access(book: AddressBook, *allow: str, protocol: str = "Chat") -> AccessList:
    registry = Registry()
    registry.add_identity(OnlineIdentity("alice", PublicKey(ALICE), cast(Any, object())))
    return AccessList(allow, book, registry, ("alice", protocol, "default"))


def test_bearer_is_admitted_to_its_binding_and_to_nothing_else(book: AddressBook) -> None:
    chat, mail = access(book, "peers"), access(book, "peers", "bob", protocol="Mail")
    assert not chat.admits(BOB)
    redeemed = book.invitations.redeem(ALICE, SECRET, BOB)
    assert chat.admits(BOB), "at once"
    assert chat.entry_for(BOB) == f"invitation:{redeemed.id}"
    assert not mail.admits(BOB)
    book.add(id52_of(BOB), "bob", invited=True)
    assert not mail.admits(BOB), "neither by peers, nor by a name that the owner has not given it"
    assert [each.problem for each in mail.entries()] == ["", "an invitation has let it in, not its name"]
    assert access(book, id52_of(BOB), protocol="Mail").admits(BOB)
    book.groups.create("friends")
    book.groups.change("friends", [BOB], [])
    assert access(book, "group:friends", protocol="Mail").admits(BOB)
    assert [(each.who, each.why) for each in chat.entries()] == [
        ("peers", "peers"),
        ("bob", f"invitation:{redeemed.id}"),
    ]
    book.invitations.revoke(redeemed.id, access=True)
    assert not chat.admits(BOB), "at once"


def test_mark_of_a_bearer_survives_renaming_and_a_restart_until_it_is_accepted(
    book: AddressBook, tmp_path: Path, clock: Clock
) -> None:
    book.add(id52_of(BOB), "bob", invited=True)
    book.add(id52_of(BOB), "robert")
    again = AddressBook(tmp_path, clock)
    again.load()
    assert again.trusted() == 0
    assert not access(again, "peers", protocol="Mail").admits(BOB)
    again.add(id52_of(BOB), "robert", invited=False)
    assert access(again, "peers", protocol="Mail").admits(BOB)
