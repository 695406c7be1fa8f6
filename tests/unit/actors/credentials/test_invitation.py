"""Signed invitations: an identity signs them as tickets, and nobody can change one or make one for another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fastn_p2p_actors.credentials import invitation as module
from fastn_p2p_actors.credentials.envelope import encode_body
from fastn_p2p_actors.credentials.invitation import Invitation, build_invitation, hash_secret, id_of, read_invitation
from fastn_p2p_actors.credentials.peer_record import verify_record
from fastn_p2p_client.errors import BadMessage, BadSignature, InvalidName, InvitationRefused
from fastn_p2p_client.tickets import Ticket
from tests.support.signer import DAY, NOW, Signer

ALICE, EVE = Signer("alice"), Signer("eve")
KEY = bytes(ALICE.key)
SECRET = bytes(range(16))


def body(**changes: Any) -> Invitation:
    fields = {
        "identity": KEY,
        "now": NOW,
        "expires": NOW + 7 * DAY,
        "uses": 1,
        "bindings": ("Chat/default",),
        "record": ALICE.record(),
        "secret": SECRET,
    }
    return build_invitation(**{**fields, **changes})


def signed(made: Invitation, signer: Signer = ALICE, prefix: str | None = None) -> bytes:
    return signer.sign_bytes("invitation", encode_body(made), prefix=prefix)


def test_invitation_is_a_ticket_that_only_redeeming_understands() -> None:
    made = body(bindings=("Chat/default", "FileTransfer/work"))
    blob = signed(made)
    ticket = Ticket.of_record(blob)
    assert ticket.is_invitation
    assert ticket.identity == ALICE.key
    assert Ticket(str(ticket).upper()) == ticket, "as a QR code has it"
    assert read_invitation(ticket.record_bytes) == made
    assert not Ticket.of_record(ALICE.record()).is_invitation
    with pytest.raises(BadMessage, match="a record of version 64, this daemon reads 1 and 2 and 3: update it"):
        verify_record(blob, now=NOW)  # what a daemon of before says


def test_secret_is_at_the_end_of_the_text_and_in_no_repr() -> None:
    made = body()
    text = str(Ticket.of_record(signed(made)))
    other = str(Ticket.of_record(signed(body(secret=bytes(16)))))
    same = next(position for position, (one, two) in enumerate(zip(text, other, strict=True)) if one != two)
    assert same > 500, "the first characters, which logs and errors may repeat, are without it"
    assert SECRET.hex() not in repr(made)
    assert repr(SECRET)[2:-1] not in repr(made)
    assert made.id == id_of(hash_secret(KEY, SECRET))
    assert made.id in repr(made)


def test_changed_and_foreign_invitations_are_refused() -> None:
    made = body()
    for field, value in (("uses", 1000), ("expires", NOW + 8 * DAY), ("bindings", ("Mail/default",))):
        blob = msgspec.msgpack.encode(
            [encode_body(msgspec.structs.replace(made, **{field: value})), msgspec.msgpack.decode(signed(made))[1]]
        )
        with pytest.raises(BadSignature):
            read_invitation(blob)
    with pytest.raises(BadSignature):
        read_invitation(signed(made, EVE))
    with pytest.raises(BadSignature):
        read_invitation(signed(made, prefix="record"))
    with pytest.raises(BadSignature):
        read_invitation(signed(msgspec.structs.replace(made, record=EVE.record())))
    with pytest.raises(BadSignature):
        body(record=EVE.record())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"expires": NOW}, BadMessage),
        ({"expires": NOW + module.MAX_LIFETIME + 1}, BadMessage),
        ({"bindings": ("Chat",)}, InvalidName),
        ({"bindings": ("../x/y",)}, InvalidName),
        ({"record": b"none"}, BadMessage),
    ],
)
def test_parts_are_checked_before_anything_is_signed(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        body(**changes)


def test_expiry_allows_for_clocks_that_differ_a_little() -> None:
    made = body()
    made.check_expiry(made.expires + 30)
    with pytest.raises(InvitationRefused) as refused:
        made.check_expiry(made.expires + 120)
    assert (refused.value.reason, refused.value.peer) == ("expired", ALICE.key.id52)


def test_hash_depends_on_the_identity_and_the_secret() -> None:
    assert len({hash_secret(KEY, SECRET), hash_secret(bytes(EVE.key), SECRET), hash_secret(KEY, bytes(16))}) == 3
