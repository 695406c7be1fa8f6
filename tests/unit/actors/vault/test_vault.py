"""Replies of the vault: identities, and errors instead of exceptions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastn_p2p_actors.vault.access_policy import GATEWAY, NETWORK, ROLES
from fastn_p2p_actors.vault.messages import (
    PAGE,
    CreateKey,
    DeleteKey,
    GetTransport,
    IdentityKey,
    IdentityKeys,
    ListKeys,
    SignDelegation,
    SignRecord,
    VaultReply,
)
from fastn_p2p_client.errors import (
    BadMessage,
    Forbidden,
    IdentityExists,
    IdentityNotFound,
    InternalError,
    InvalidName,
    P2PError,
)
from fastn_p2p_client.ipc.messages import Ack, Cancel, ErrorReply, GetStatus, encode
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_HEADER
from tests.support.vault_setup import VaultSetup


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


_replies: msgspec.msgpack.Decoder[VaultReply] = msgspec.msgpack.Decoder(VaultReply)


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
