"""Errors about the way to a peer end with the one thing to try next."""

from __future__ import annotations

import re

import pytest

from fastn_p2p_client import errors as e

ID52 = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"

NEXT_STEPS: dict[str, tuple[e.P2PError, str]] = {
    "peer-unknown": (e.PeerUnknown(peer="bob"), "fastn-p2p peer add TICKET --name NAME"),
    "peer-unknown, by ID52": (e.PeerUnknown(peer=ID52), f"fastn-p2p explain {ID52}"),
    "peer-unreachable": (e.PeerUnreachable(peer="bob", reason="no answer"), "fastn-p2p explain bob"),
    "peer-offline": (e.PeerOffline(peer="bob"), "fastn-p2p identity-online NAME"),
    "protocol-not-found": (
        e.ProtocolNotFound(peer="bob", protocol="Echo"), "fastn-p2p add-protocol NAME --protocol Echo"
    ),
    "instance-not-found": (e.InstanceNotFound(peer="bob", protocol="Echo", instance="x"), "fastn-p2p status"),
    "protocol-not-found, of the web": (e.ProtocolNotFound(peer="bob", protocol="Web"), "fastn-p2p expose PORT"),
    "instance-not-found, of the web": (
        e.InstanceNotFound(peer="bob", protocol="Web", instance="wiki"), "fastn-p2p expose PORT --name wiki"
    ),
    "denied": (
        e.Denied(peer="bob", protocol="Echo", instance="default"),
        "fastn-p2p peer accept YOUR-ID52",
    ),
    "invalid-ticket": (e.InvalidTicket(reason="short"), "fastn-p2p ticket NAME"),
    "bad-signature": (e.BadSignature(what="record", identity=ID52), "fastn-p2p ticket NAME"),
    "wrong-endpoint": (e.WrongEndpoint(identity=ID52), "fastn-p2p ticket NAME"),
    "epoch-retired": (e.EpochRetired(identity=ID52, epoch=1, newest=2), "fastn-p2p ticket NAME"),
    "record-replayed": (e.RecordReplayed(identity=ID52, sequence=1, newest=2), "fastn-p2p ticket NAME"),
    "identity-revoked": (
        e.IdentityRevoked(identity="bob", revoked="2026-11-29T08:30:00Z", successor=ID52),
        "fastn-p2p peer accept-successor bob",
    ),
    "delegation-not-yet-valid": (e.DelegationNotYetValid(identity=ID52, seconds=90), "fastn-p2p netcheck"),
    "invitation-refused": (e.InvitationRefused(peer="bob", reason="used-up"), "fastn-p2p invite"),
    "daemon-not-running": (e.DaemonNotRunning(home="/h"), "fastn-p2p daemon"),
    "no-identity-online": (e.NoIdentityOnline(), "fastn-p2p identity-online NAME"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEXT_STEPS)
def test_the_text_ends_with_one_command(name: str) -> None:
    error, command = NEXT_STEPS[name]
    assert error.code == name.partition(",")[0]
    assert str(error).endswith(f": {command}")


def test_every_error_of_the_peer_has_a_next_step() -> None:
    """The errors that are taken out are not about reach: the peer was reached."""
    about_reach = {cls.code for cls in e.RemoteError.__subclasses__() if cls.code in e.CODES}
    about_reach -= {"handler-failed", "command-not-found", "home-away", "outcome-unknown"}
    assert about_reach <= {re.sub(",.*", "", name) for name in NEXT_STEPS}
