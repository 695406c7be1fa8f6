"""Administration by programs, through the blocking client, which calls the one with ``await``."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fastn_p2p_client.errors import (
    BindingNotFound,
    GroupNotFound,
    IdentityExists,
    IdentityNotFound,
    InvalidConfig,
    PeerNameUnknown,
    WorkspaceNotEmpty,
)
from tests.support.two_daemons import TwoDaemons

ID52 = "88mnvkru1v9iifeltebr9eoputurna0bag7i4a5goi68eal4alpg"


@dataclass
class EchoConfig:
    max_length: int


def test_identities(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        identities = client.identities
        created = identities.create("carol", listed=False)
        assert (created.name, created.online, created.listed) == ("carol", False, False)
        with pytest.raises(IdentityExists):
            identities.create("carol")
        assert created in identities.list()
        assert identities.set_listed("carol", True).listed
        assert identities.set_limits("carol", open_files=0).limits.open_files == 0
        assert identities.set_limits("carol", open_files=-1).limits.open_files is None
        assert identities.set_online("carol").online
        assert identities.get("carol").online
        assert identities.ticket("carol").expires > 0
        assert not identities.set_online("carol", False).online
        assert identities.revoke("carol").revoked
        identities.delete("carol")
        with pytest.raises(IdentityNotFound):
            identities.get("carol")
        assert "carol" not in [each.name for each in client.status().identities]


def test_protocols(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        protocols = client.protocols
        assert "Echo" in [each.name for each in protocols.list()]
        client.identities.create("carol")
        client.identities.set_online("carol")
        chosen = ("carol", "Echo", "short")
        with pytest.raises(InvalidConfig):
            protocols.add(*chosen, config={"max_length": "many"})
        protocols.add(*chosen, config=EchoConfig(3), allow=["peers"])
        (found,) = protocols.access("carol")
        assert (found.protocol, found.instance, found.allow) == ("Echo", "short", ["peers"])
        assert protocols.set(*chosen, config=b'{"max_length": 4}', allow=["everyone"]) == "serving"
        assert [each.allow for each in protocols.access("carol")] == [["everyone"]]
        assert protocols.stop(*chosen) == "stopped"
        assert protocols.start(*chosen) == protocols.check(*chosen) == protocols.reload(*chosen) == "serving"
        protocols.remove(*chosen)
        with pytest.raises(BindingNotFound):
            protocols.stop(*chosen)
        protocols.add("carol", "Mail")
        with pytest.raises(WorkspaceNotEmpty):
            protocols.remove("carol", "Mail", if_empty=True)
        protocols.remove("carol", "Mail", keep_data=True)
        client.identities.delete("carol")


def test_peers_and_groups(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        peers, groups = client.peers, client.groups
        assert peers.add(ID52, "dora").peer.id52 == ID52
        assert peers.rename("dora", "dana").name == "dana"
        assert peers.get(ID52) in peers.list()
        with pytest.raises(PeerNameUnknown):
            groups.create("friends", "nobody")
        assert groups.list() == []
        groups.create("friends", "dana")
        groups.remove("friends", "dana")
        groups.add("friends", ID52)
        (friends,) = groups.list()
        assert (friends.name, friends.members) == ("friends", ["dana"])
        groups.delete("friends")
        with pytest.raises(GroupNotFound):
            groups.add("friends", "dana")
        peers.block("dana")
        assert [each.id52 for each in peers.blocked()] == [ID52]
        peers.unblock("dana")
        peers.remove("dana")
        assert peers.accept(ID52, "dora").name == "dora"
        peers.remove("dora")
        assert peers.pending() == []
        with pytest.raises(PeerNameUnknown):
            peers.accept_successor("dora")


def test_invitations(daemons: TwoDaemons) -> None:
    with daemons.one.client() as client:
        made = client.invitations.create(["Echo"], identity="alice", uses=2, seconds=600)
        assert (made.invitation.uses, made.invitation.bindings) == (2, ["Echo/default"])
        assert [each.id for each in client.invitations.list("alice")] == [made.invitation.id]
        assert client.invitations.revoke(made.invitation.id, access=True).state == "revoked"
