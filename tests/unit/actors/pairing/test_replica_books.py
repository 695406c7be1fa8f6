"""Words of a pairing, and words by which a daemon joins an identity, are for different purposes."""

from __future__ import annotations

import socket
from datetime import date
from pathlib import Path

import pytest

from fastn_p2p_actors.credentials.meeting_key import MeetingKey
from fastn_p2p_actors.credentials.password_exchange import PasswordExchange
from fastn_p2p_actors.pairing.pairing_book import PairingBook
from fastn_p2p_actors.pairing.replica_books import ReplicaInviteBook, ReplicaJoinBook
from fastn_p2p_actors.runtime.machine_name import machine_name
from fastn_p2p_client.errors import InvalidName
from fastn_p2p_client.home import Home
from fastn_p2p_client.names import check_name

CODE = "tunnel bundle sonic slight"


def test_words_for_a_peer_are_none_for_a_replica(tmp_path: Path) -> None:
    home = Home(tmp_path)
    peer, invite, join = PairingBook(home, ""), ReplicaInviteBook(home, ""), ReplicaJoinBook(home, "")
    assert invite.purpose == join.purpose != peer.purpose
    keys = {MeetingKey("tunnel bundle" + each.purpose, date(2030, 1, 1)).public for each in (peer, invite)}
    assert len(keys) == 2
    first, second = bytes(32), bytes([1]) * 32
    host = PasswordExchange((CODE + invite.purpose).encode(), first, second, is_first=True)
    joiner = PasswordExchange((CODE + peer.purpose).encode(), first, second, is_first=False)
    assert host.finish(joiner.message) != joiner.finish(host.message)


@pytest.mark.parametrize("name", ["desk", "Desk.Example.ORG", "-", "ünï", "x" * 200, "10.0.0.1"])
def test_every_machine_has_a_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert check_name(machine_name(), "a replica")


def test_names_are_checked_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InvalidName):
        ReplicaInviteBook(Home(tmp_path), "Not a name")
    with pytest.raises(InvalidName):
        ReplicaJoinBook(Home(tmp_path), "Not a name")
