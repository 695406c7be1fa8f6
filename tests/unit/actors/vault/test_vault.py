"""Replies of the vault by role: the access table, each request, and that it signs nothing else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastn_p2p_actors.credentials import (
    EndpointEntry,
    EpochTracker,
    SequenceTracker,
    read_record,
    verify_delegation,
    verify_record,
)
from fastn_p2p_actors.credentials.envelope import seal, signing_input
from fastn_p2p_actors.credentials.invitation import Invitation, read_invitation
from fastn_p2p_actors.credentials.pkarr import HEADER_BYTES, MAX_PACKET, read_signed_packet, sequence_of
from fastn_p2p_actors.credentials.record_packet import record_in
from fastn_p2p_actors.runtime.curve.keys import generate_vault_keys
from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK, OWNER, ROLES, TABLE, VaultState, check_allowed
from fastn_p2p_actors.vault.actor import VaultServer
from fastn_p2p_actors.vault.key_store import KeyStore
from fastn_p2p_actors.vault.locked_memory import LockedMemory
from fastn_p2p_actors.vault.messages import (
    PAGE,
    AdoptKeys,
    CreateKey,
    DeleteKey,
    EndpointKey,
    GetEndpoint,
    GetLockState,
    GetTransport,
    IdentityKey,
    IdentityKeys,
    ListKeys,
    ListRevokedKeys,
    LockState,
    RecordEvent,
    RevokedKeys,
    RevokeKey,
    RotateTransportKey,
    SignDelegation,
    SignedDelegation,
    SignedRecord,
    SignedRecordPacket,
    SignInvitation,
    SignPacket,
    SignRecord,
    TransportKey,
    VaultReply,
    VaultRequest,
)
from fastn_p2p_actors.vault.owner_messages import OwnerRequest
from fastn_p2p_actors.vault.vault import DELEGATION_SECONDS, Vault
from fastn_p2p_client.errors import (
    BackupUnusable,
    BadMessage,
    BadSignature,
    Forbidden,
    IdentityExists,
    IdentityNotFound,
    IdentityRevoked,
    InternalError,
    InvalidName,
    P2PError,
    VaultLocked,
)
from fastn_p2p_client.ipc.messages import Ack, Cancel, ErrorReply, GetStatus, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_HEADER
from tests.support.locked_vaults import LockedVault
from tests.support.signer import NOW, Signer

REQUESTS: dict[type[msgspec.Struct], msgspec.Struct] = {
    CreateKey: CreateKey("bob"),
    DeleteKey: DeleteKey("alice"),
    ListKeys: ListKeys(),
    GetLockState: GetLockState(),
    RevokeKey: RevokeKey("alice"),
    ListRevokedKeys: ListRevokedKeys(),
    AdoptKeys: AdoptKeys(b"token", (("alice", "alice"),)),
    RotateTransportKey: RotateTransportKey(),
    GetEndpoint: GetEndpoint(),
    GetTransport: GetTransport(),
    SignDelegation: SignDelegation("alice"),
    SignRecord: SignRecord("alice", (), ()),
    SignPacket: SignPacket("alice", (), ()),
    SignInvitation: SignInvitation("alice", 1, 1, ("Chat/default",), b"", bytes(16)),
    RecordEvent: RecordEvent("command", {"name": "alice", "allow": ["bob"], "online": True, "pid": 7}),
    Cancel: Cancel(),
}
"""Message of each kind, for a vault that has alice."""

_replies: msgspec.msgpack.Decoder[VaultReply] = msgspec.msgpack.Decoder(VaultReply)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class VaultSetup(NamedTuple):
    """Vault without a process."""

    vault: Vault
    server: VaultServer
    clock: Clock
    folder: Path

    def request(self, role: str, request: Any) -> Any:
        return self.vault.answer(role, request)


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[VaultSetup]:
    memory, clock = LockedMemory(), Clock()
    folder = tmp_path / "vault"
    store = KeyStore(folder, memory, clock)
    store.open()
    vault = Vault(store, clock)
    vault.answer(GATEWAY, CreateKey("alice"))
    yield VaultSetup(vault, VaultServer(vault, logging.getLogger("vault")), clock, folder)
    memory.wipe()


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────


def test_table_lists_every_request_in_every_state_and_nothing_else() -> None:
    messages, own = set(get_args(VaultRequest)), set(get_args(OwnerRequest))
    assert messages == set(REQUESTS)
    assert messages | own == set(TABLE)
    for kind, rights in TABLE.items():
        assert set(rights) == set(VaultState)
        assert all(roles <= ({OWNER} if kind in own else set(ROLES)) for roles in rights.values())


def test_table_of_permissions() -> None:
    allowed = {
        (kind.__name__, state.value): sorted(roles) for kind, rights in TABLE.items() for state, roles in rights.items()
    }
    assert allowed == {
        ("CreateKey", "open"): [GATEWAY],
        ("CreateKey", "locked"): [],
        ("DeleteKey", "open"): [GATEWAY],
        ("DeleteKey", "locked"): [],
        ("ListKeys", "open"): [GATEWAY],
        ("ListKeys", "locked"): [],
        ("RevokeKey", "open"): [GATEWAY],
        ("RevokeKey", "locked"): [],
        ("ListRevokedKeys", "open"): [GATEWAY],
        ("ListRevokedKeys", "locked"): [GATEWAY],
        ("AdoptKeys", "open"): [GATEWAY],
        ("AdoptKeys", "locked"): [],
        ("RotateTransportKey", "open"): [GATEWAY],
        ("RotateTransportKey", "locked"): [],
        ("GetEndpoint", "open"): [GATEWAY],
        ("GetEndpoint", "locked"): [GATEWAY],
        ("GetLockState", "open"): [GATEWAY],
        ("GetLockState", "locked"): [GATEWAY],
        ("GetTransport", "open"): [NETWORK],
        ("GetTransport", "locked"): [NETWORK],
        ("SignDelegation", "open"): [NETWORK],
        ("SignDelegation", "locked"): [NETWORK],
        ("SignRecord", "open"): [NETWORK],
        ("SignRecord", "locked"): [NETWORK],
        ("SignPacket", "open"): [NETWORK],
        ("SignPacket", "locked"): [NETWORK],
        ("SignInvitation", "open"): [NETWORK],
        ("SignInvitation", "locked"): [],
        ("RecordEvent", "open"): [GATEWAY, NETWORK],
        ("RecordEvent", "locked"): [GATEWAY, NETWORK],
        ("Cancel", "open"): [GATEWAY, NETWORK],
        ("Cancel", "locked"): [GATEWAY, NETWORK],
        ("GetVaultStatus", "open"): [OWNER],
        ("GetVaultStatus", "locked"): [OWNER],
        ("SetPassphrase", "open"): [OWNER],
        ("SetPassphrase", "locked"): [OWNER],
        ("UnlockVault", "open"): [OWNER],
        ("UnlockVault", "locked"): [OWNER],
        ("LockVault", "open"): [OWNER],
        ("LockVault", "locked"): [OWNER],
        ("AddSlot", "open"): [OWNER],
        ("AddSlot", "locked"): [OWNER],
        ("RemoveSlot", "open"): [OWNER],
        ("RemoveSlot", "locked"): [OWNER],
        ("CheckSecret", "open"): [OWNER],
        ("CheckSecret", "locked"): [OWNER],
        ("CreateBackup", "open"): [OWNER],
        ("CreateBackup", "locked"): [],
        ("OpenBackup", "open"): [OWNER],
        ("OpenBackup", "locked"): [OWNER],
    }


def test_roles_are_those_that_the_supervisor_hands_out() -> None:
    assert sorted(generate_vault_keys().vault.roles.values()) == sorted(ROLES)


def invitation_of_alice(setup: VaultSetup, **changes: Any) -> SignInvitation:
    """Return a request for an invitation, with a record of alice in it."""
    record = setup.request(NETWORK, SignRecord("alice", (), ("192.0.2.1:1",))).blob
    fields = {"expires": NOW + 60, "uses": 2, "bindings": ("Chat/default",), "record": record, "secret": bytes(16)}
    return SignInvitation("alice", **{**fields, **changes})


STRANGERS = [OWNER, "", "identity-alice", "supervisor", "Gateway", "gateway "]


@pytest.mark.parametrize("role", [*ROLES, *STRANGERS])
@pytest.mark.parametrize("kind", REQUESTS)
def test_every_request_of_every_wrong_role_is_forbidden_and_does_nothing(
    setup: VaultSetup, kind: type[msgspec.Struct], role: str
) -> None:
    if role in TABLE[kind][VaultState.OPEN]:
        with suppress(BackupUnusable):  # no backup is open here
            setup.request(role, invitation_of_alice(setup) if kind is SignInvitation else REQUESTS[kind])
        return
    before = sorted(path.name for path in setup.folder.rglob("*"))
    with pytest.raises(Forbidden) as caught:
        setup.request(role, REQUESTS[kind])
    assert caught.value.request == kind.__name__
    assert sorted(path.name for path in setup.folder.rglob("*")) == before


@pytest.mark.parametrize("role", [*ROLES, *STRANGERS])
def test_requests_outside_the_table_are_forbidden(role: str) -> None:
    with pytest.raises(Forbidden):
        check_allowed(role, VaultState.OPEN, GetStatus())


def test_forbidden_comes_before_any_other_answer(setup: VaultSetup) -> None:
    """A sender without permission does not learn whether an identity exists."""
    for request in (SignDelegation("nobody"), SignDelegation("NOT A NAME"), SignRecord("alice", ("x",), ())):
        with pytest.raises(Forbidden):
            setup.request(GATEWAY, request)


# ── identities ───────────────────────────────────────────────────────────────────────────────────


def test_identities_are_made_listed_and_deleted(setup: VaultSetup) -> None:
    bob = setup.request(GATEWAY, CreateKey("bob"))
    assert isinstance(bob, IdentityKey)
    assert (bob.name, bob.created, PublicKey(bob.public).id52[:0]) == ("bob", "2027-01-15T08:00:00Z", "")
    listed = setup.request(GATEWAY, ListKeys())
    assert isinstance(listed, IdentityKeys)
    assert [key.name for key in listed.identities] == ["alice", "bob"]
    assert (listed.identities[1], listed.damaged, listed.more) == (bob, (), False)
    assert setup.request(GATEWAY, DeleteKey("alice")) == Ack()
    assert [key.name for key in setup.request(GATEWAY, ListKeys()).identities] == ["bob"]
    with pytest.raises(IdentityNotFound):
        setup.request(NETWORK, SignDelegation("alice"))
    again = setup.request(GATEWAY, CreateKey("alice"))
    assert again.public != bob.public


def test_identity_that_exists_is_left_alone(setup: VaultSetup) -> None:
    before = setup.request(GATEWAY, ListKeys())
    with pytest.raises(IdentityExists):
        setup.request(GATEWAY, CreateKey("alice"))
    assert setup.request(GATEWAY, ListKeys()) == before


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "Alice", "a" * 65, "a/b", ".", "alice.key", "\0"])
def test_bad_names_are_refused_everywhere(setup: VaultSetup, name: str) -> None:
    for role, request in (
        (GATEWAY, CreateKey(name)),
        (GATEWAY, DeleteKey(name)),
        (NETWORK, SignDelegation(name)),
        (NETWORK, SignRecord(name, (), ())),
    ):
        with pytest.raises(InvalidName):
            setup.request(role, request)


def test_unknown_identities(setup: VaultSetup) -> None:
    for role, request in (
        (GATEWAY, DeleteKey("nobody")),
        (NETWORK, SignDelegation("nobody")),
        (NETWORK, SignRecord("nobody", (), ())),
    ):
        with pytest.raises(IdentityNotFound):
            setup.request(role, request)


def test_many_identities_are_listed_page_by_page(setup: VaultSetup) -> None:
    wanted = {"alice"} | {f"id{number:04}-{'x' * 50}" for number in range(PAGE + 20)}
    for name in sorted(wanted - {"alice"}):
        setup.request(GATEWAY, CreateKey(name))
    names: list[str] = []
    page = setup.request(GATEWAY, ListKeys())
    while True:
        assert len(encode(page)) <= MAX_HEADER
        names += [key.name for key in page.identities]
        if not page.more:
            break
        page = setup.request(GATEWAY, ListKeys(page.last))
    assert names == sorted(wanted)


# ── what is signed ───────────────────────────────────────────────────────────────────────────────


def test_delegation_is_for_the_vaults_own_transport_key_alone(setup: VaultSetup) -> None:
    transport = setup.request(NETWORK, GetTransport())
    assert isinstance(transport, TransportKey)
    signed = setup.request(NETWORK, SignDelegation("alice"))
    assert isinstance(signed, SignedDelegation)
    delegation = verify_delegation(signed.blob, now=NOW, endpoint=transport.public, epochs=EpochTracker())
    alice = setup.request(GATEWAY, ListKeys()).identities[0]
    assert delegation.identity == alice.public
    assert (delegation.epoch, delegation.lineage) == (transport.epoch, transport.lineage)
    assert (delegation.not_before, delegation.not_after) == (NOW, NOW + DELEGATION_SECONDS)
    assert signed.not_after == delegation.not_after


def test_record_holds_and_each_one_replaces_the_one_before(setup: VaultSetup) -> None:
    sequences = SequenceTracker()
    transport = setup.request(NETWORK, GetTransport())
    seen: list[int] = []
    for step in (0.0, 0.0, 10.0, -3600.0):
        setup.clock.now += step
        signed = setup.request(NETWORK, SignRecord("alice", ("https://relay.example/",), ("192.0.2.1:1", "[::1]:2")))
        assert isinstance(signed, SignedRecord)
        record = verify_record(signed.blob, now=setup.clock.now, sequences=sequences)
        (own,) = record.endpoints
        assert (own.delegation.endpoint, own.sequence) == (transport.public, record.sequence)
        assert (own.relays, own.addresses) == (("https://relay.example/",), ("192.0.2.1:1", "[::1]:2"))
        assert signed.expires == record.expires
        seen.append(record.sequence)
    assert seen == sorted(set(seen))


def entry_of(setup: VaultSetup, endpoint: bytes, sequence: int, until: float = NOW + 3600) -> EndpointEntry:
    """Alice's entry of an endpoint, as the vault of another daemon signs it."""
    alice = next(each for each in setup.vault._store.page("", 1).keys)
    fields = [1, alice.pair.public, endpoint, bytes(16), 1, NOW - 3600, int(until), ["speak"]]
    body = msgspec.msgpack.encode(fields)
    delegation = seal(body, alice.pair.sign(signing_input("delegation", body)))
    return EndpointEntry(delegation, sequence, (), ("192.0.2.9:9",))


def test_record_keeps_valid_endpoints_of_other_daemons(setup: VaultSetup) -> None:
    transport = setup.request(NETWORK, GetTransport()).public
    now = int(setup.clock.now * 1000)
    good = entry_of(setup, b"2" * 32, now - 5)
    left_out = [
        entry_of(setup, transport, now - 5),
        entry_of(setup, b"3" * 32, now - 5, NOW - 60),
        entry_of(setup, b"4" * 32, now + 60_000),
    ]
    signed = setup.request(NETWORK, SignRecord("alice", (), ("192.0.2.1:1",), (good, *left_out)))
    record = verify_record(signed.blob, now=setup.clock.now)
    assert [each.delegation.endpoint for each in record.endpoints] == [transport, b"2" * 32]
    assert [each.sequence for each in record.endpoints] == [record.sequence, now - 5]


def test_packet_holds_the_record_and_each_one_replaces_the_one_before(setup: VaultSetup) -> None:
    key = setup.request(GATEWAY, ListKeys()).identities[0].public
    sequences: list[int] = []
    for step in (0.0, 0.0, -3600.0):
        setup.clock.now += step
        signed = setup.request(NETWORK, SignPacket("alice", ("https://relay.example/",), ("192.0.2.1:1",)))
        packet = read_signed_packet(key, signed.body)
        assert record_in(packet) == signed.record
        assert verify_record(signed.record, now=setup.clock.now).expires == signed.expires
        sequences.append(packet.sequence)
    assert sequences == sorted(set(sequences))


def test_a_packet_gets_a_higher_sequence_than_the_one_that_a_directory_has(setup: VaultSetup) -> None:
    ahead = 2 * 1_000_000 * NOW
    signed = setup.request(NETWORK, SignPacket("alice", (), ("192.0.2.1:1",), above=ahead))
    assert sequence_of(signed.body) == ahead + 1
    assert read_record(signed.record).sequence == 1000 * NOW  # the record says when it was made all the same
    assert sequence_of(setup.request(NETWORK, SignPacket("alice", (), ())).body) < ahead


def test_a_withdrawn_packet_has_the_other_endpoints_only(setup: VaultSetup) -> None:
    key = setup.request(GATEWAY, ListKeys()).identities[0].public
    alone = setup.request(NETWORK, SignPacket("alice", (), ("192.0.2.1:1",), withdrawn=True))
    assert (alone.record, alone.expires) == (b"", 0)
    assert record_in(read_signed_packet(key, alone.body)) == b""
    other = entry_of(setup, b"2" * 32, int(setup.clock.now * 1000) - 5)
    signed = setup.request(NETWORK, SignPacket("alice", (), ("192.0.2.1:1",), (other,), withdrawn=True))
    record = verify_record(record_in(read_signed_packet(key, signed.body)), now=setup.clock.now)
    assert [each.delegation.endpoint for each in record.endpoints] == [b"2" * 32]


def test_the_largest_record_fits_into_a_packet(setup: VaultSetup) -> None:
    addresses = tuple(f"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}]:65535" for number in range(16))
    signed = setup.request(NETWORK, SignPacket("alice", ("https://relay.example/",) * 4, addresses))
    assert 900 < len(signed.body) - HEADER_BYTES <= MAX_PACKET


@pytest.mark.parametrize(
    "request_",
    [
        SignRecord("alice", ("ftp://plain.example/",), ()),
        SignRecord("alice", (), ("host.example:1",)),
        SignRecord("alice", (), (), (EndpointEntry(Signer("mallory").delegation(), 1, (), ()),)),
        SignRecord("alice", (), (), (EndpointEntry(b"no delegation", 1, (), ()),)),
        SignRecord("alice", (), ("192.0.2.1:1",) * 17),
        SignRecord("alice", ("https://relay.example/",) * 5, ()),
    ],
)
def test_invalid_record_is_not_signed(setup: VaultSetup, request_: SignRecord) -> None:
    with pytest.raises((BadMessage, BadSignature)):
        setup.request(NETWORK, request_)


def test_transport_key_is_not_printed() -> None:
    assert "secret" not in repr(TransportKey(b"secret-" * 4, bytes(32), 1, bytes(16)))


# ── the desk ─────────────────────────────────────────────────────────────────────────────────────


def test_server_replies_with_errors_instead_of_raising(setup: VaultSetup) -> None:
    for header, error in (
        (encode(GetTransport()), Forbidden),
        (encode(SignDelegation("x")), Forbidden),
        (encode(CreateKey("alice")), IdentityExists),
        (encode(GetStatus()), BadMessage),
        (b"", BadMessage),
        (b"\x92\xcc\xc8\xa1\xff", BadMessage),
    ):
        answer = setup.server.handle(GATEWAY, header)
        assert answer is not None
        reply = _replies.decode(answer)
        assert isinstance(reply, ErrorReply)
        assert type(reply.error()) is error
    assert setup.server.handle(GATEWAY, encode(Cancel())) is None


def test_defect_is_answered_without_its_details(setup: VaultSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(role: str, request: object) -> None:
        raise RuntimeError("something private")

    monkeypatch.setattr(setup.vault, "answer", broken)
    reply = _replies.decode(setup.server.handle(GATEWAY, encode(ListKeys())) or b"")
    assert isinstance(reply, ErrorReply)
    assert isinstance(reply.error(), InternalError)
    assert "private" not in str(reply.error())


TEXTS = st.text(max_size=9)
FUZZED_REQUESTS = st.one_of(
    st.builds(ListKeys, TEXTS),
    st.builds(DeleteKey, TEXTS),
    st.builds(SignDelegation, TEXTS | st.just("alice")),
    st.builds(SignRecord, TEXTS | st.just("alice"), st.tuples(TEXTS), st.tuples(TEXTS, TEXTS)),
    st.just(GetTransport()),
).map(encode)
TAGS = st.sampled_from([*range(200, 206), 0, 1, 17])
ANYTHING = st.none() | st.booleans() | st.integers(-9, 2**63) | st.floats() | st.binary(max_size=9) | TEXTS
FUZZED_ARRAYS = st.tuples(TAGS, st.lists(ANYTHING | st.lists(ANYTHING, max_size=3), max_size=4)).map(
    lambda parts: encode([parts[0], *parts[1]])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(role=st.sampled_from(["", *ROLES]), header=st.binary(max_size=80) | FUZZED_REQUESTS | FUZZED_ARRAYS)
def test_any_header_gets_a_reply_or_a_known_error(setup: VaultSetup, role: str, header: bytes) -> None:
    answer = setup.server.handle(role, header)
    if answer is None:
        assert header[1:2] == encode(Cancel())[1:2]
        return
    reply = _replies.decode(answer)
    if isinstance(reply, ErrorReply):
        assert isinstance(reply.error(), P2PError)
        assert not isinstance(reply.error(), InternalError)
    else:
        assert role in ROLES


# ── locked ───────────────────────────────────────────────────────────────────────────────────────


def test_invitation_is_signed_with_what_was_asked_for_and_nothing_else(setup: VaultSetup) -> None:
    request = invitation_of_alice(setup)
    signed = setup.request(NETWORK, request)
    read = read_invitation(signed.blob)
    assert read == Invitation(64, read.identity, NOW, NOW + 60, 2, ("Chat/default",), request.record, bytes(16))
    assert bytes(16) not in repr(signed).encode()
    assert read_record(request.record).identity == read.key
    with pytest.raises(BadMessage):  # a signature of one kind is none of another
        read_record(signed.blob)
    setup.request(GATEWAY, CreateKey("bob"))
    of_bob = setup.request(NETWORK, SignRecord("bob", (), ("192.0.2.1:1",))).blob
    for wrong in ({"record": of_bob}, {"record": b"anything"}, {"expires": NOW}, {"bindings": ("anything",)}):
        with pytest.raises((BadSignature, BadMessage, InvalidName)):
            setup.request(NETWORK, invitation_of_alice(setup, **wrong))
    setup.request(GATEWAY, RevokeKey("alice"))
    with pytest.raises(IdentityRevoked):
        setup.request(NETWORK, request)


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[tuple[Vault, LockedVault]]:
    """Vault with alice that was used, encrypted and locked."""
    parts = LockedVault(tmp_path / "vault")
    vault = Vault(parts.store, parts.clock, lock=parts.lock)
    vault.answer(GATEWAY, CreateKey("alice"))
    await parts.set_passphrase(b"one")
    for kind in (SignDelegation, SignRecord, SignPacket):
        vault.answer(NETWORK, cast(VaultRequest, REQUESTS[kind]))
    await parts.lock.lock()
    yield vault, parts
    parts.close()


@pytest.mark.parametrize("role", [*ROLES, *STRANGERS])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_every_cell_of_the_table_while_the_vault_is_locked(
    locked: tuple[Vault, LockedVault], kind: type[msgspec.Struct], role: str
) -> None:
    vault, parts = locked
    before = {path: path.read_bytes() for path in parts.folder.rglob("*") if path.is_file()}
    request = cast(VaultRequest, REQUESTS[kind])
    assert vault.state is VaultState.LOCKED
    if role in TABLE[kind][VaultState.LOCKED]:
        reply = vault.answer(role, request)
        expected: dict[type[Any], type[Any]] = {
            GetLockState: LockState,
            GetTransport: TransportKey,
            SignDelegation: SignedDelegation,
            SignRecord: SignedRecord,
            SignPacket: SignedRecordPacket,
            ListRevokedKeys: RevokedKeys,
            GetEndpoint: EndpointKey,
            RecordEvent: Ack,
            Cancel: type(None),
        }
        assert type(reply) is expected[kind]
    else:
        would_be_allowed = role in TABLE[kind][VaultState.OPEN]
        with pytest.raises(VaultLocked if would_be_allowed else Forbidden):
            vault.answer(role, request)
    assert {path: path.read_bytes() for path in parts.folder.rglob("*") if path.is_file()} == before


async def test_locked_vault_repeats_what_it_has_signed_until_that_expires(locked: tuple[Vault, LockedVault]) -> None:
    vault, parts = locked
    requests: list[VaultRequest] = [
        SignDelegation("alice"),
        SignRecord("alice", (), ("192.0.2.1:1",)),
        SignPacket("alice", (), ()),
    ]
    first = [vault.answer(NETWORK, request) for request in requests]
    parts.now += 3600
    assert [vault.answer(NETWORK, request) for request in requests] == first
    refusals: list[VaultRequest] = [SignDelegation("bob"), SignPacket("alice", (), (), withdrawn=True)]
    for refused in refusals:
        with pytest.raises(VaultLocked):
            vault.answer(NETWORK, refused)
    await parts.unlock(b"one")
    renewed = [vault.answer(NETWORK, request) for request in requests]
    assert all(new != old for new, old in zip(renewed, first, strict=True))
    await parts.lock.lock()
    assert vault.answer(NETWORK, requests[0]) == renewed[0]
    parts.now += DELEGATION_SECONDS
    for request in requests:
        with pytest.raises(VaultLocked, match="fastn-p2p vault unlock"):
            vault.answer(NETWORK, request)


async def test_vault_that_starts_locked_gives_nothing_away(locked: tuple[Vault, LockedVault]) -> None:
    _, parts = locked
    again = LockedVault(parts.folder)
    try:
        vault = Vault(again.store, again.clock, lock=again.lock)
        for request in (REQUESTS[kind] for kind in (GetTransport, SignDelegation, SignRecord, SignPacket)):
            with pytest.raises(VaultLocked):
                vault.answer(NETWORK, cast(VaultRequest, request))
        assert vault.answer(GATEWAY, GetLockState()) == LockState(True, True, 0)
    finally:
        again.close()
