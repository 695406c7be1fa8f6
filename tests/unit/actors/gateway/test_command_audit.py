"""The line of a command in the audit log: what it named, and no secret of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from fastn_p2p_actors.credentials.envelope import encode_body
from fastn_p2p_actors.credentials.invitation import build_invitation
from fastn_p2p_actors.gateway.command_audit import record_command
from fastn_p2p_client.errors import InvitationRefused
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.tickets import Ticket
from tests.support.signer import DAY, NOW, Signer

ALICE = Signer("alice")
MADE = build_invitation(bytes(ALICE.key), NOW, NOW + DAY, 1, ("Chat/default",), ALICE.record(), b"sixteen bytes 16")
TICKET = str(Ticket.of_record(ALICE.sign_bytes("invitation", encode_body(MADE))))


def line(command: msgspec.Struct, reply: msgspec.Struct) -> dict[str, Any]:
    """Return the event of a command."""
    recorded: list[dict[str, Any]] = []
    audit = SimpleNamespace(record=lambda event, **fields: recorded.append({"event": event, **fields}))
    record_command(cast(Any, audit), cast(Any, SimpleNamespace(pid=1, uid=2)), "fastn-p2p", command, reply)
    (only,) = recorded
    return only


@pytest.mark.parametrize("text", [TICKET, TICKET.upper(), f"fastn-p2p://{TICKET}", f"{TICKET[:300]}\n{TICKET[300:]}"])
def test_invitation_that_was_refused_is_recorded_as_its_identity(text: str) -> None:
    refused = m.ErrorReply.of(InvitationRefused(peer=ALICE.key.id52, reason="used-up"))
    found = line(m.AddPeer(text, "ally"), refused)
    assert (found["command"], found["peer"], found["outcome"]) == ("AddPeer", ALICE.key.id52, "invitation-refused")


@pytest.mark.parametrize("text", [TICKET[:-2], TICKET + "0", TICKET[:-1] + "!", f"x{TICKET}", f"fastn-p2p:{TICKET}"])
def test_damaged_ticket_is_recorded_without_its_secret(text: str) -> None:
    found = line(m.AddPeer(text, "ally"), m.ErrorReply("invalid-ticket", {}))
    assert len(found["peer"]) <= 64
    assert found["peer"][:16] in text


def test_other_names_of_peers_are_recorded_as_they_are() -> None:
    assert line(m.AddPeer(ALICE.key.id52, "ally"), m.ErrorReply("x", {}))["peer"] == ALICE.key.id52


def test_new_and_revoked_invitations_are_recorded_by_their_ids() -> None:
    made = m.InvitationInfo(
        id="9d2k3f4g", identity="alice", bindings=["Chat/default"], state="open", uses=1, bearers=[], created_ms=0,
        expires_ms=0,
    )  # fmt: skip
    found = line(m.CreateInvitation("alice", ("Chat",)), m.InvitationText(made, TICKET))
    assert (found["id"], found["bindings"], found["uses"]) == ("9d2k3f4g", ["Chat"], 1)
    assert TICKET[-40:] not in repr(found)
    assert line(m.RevokeInvitation("9d2k"), m.InvitationList([made]))["id"] == "9d2k3f4g"
