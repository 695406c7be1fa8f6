"""News between daemons that know each other: an address that changes, and a start elsewhere.

There is no relay, directory or LAN that would tell.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass

import pytest

from fastn_p2p_actors.credentials import read_record
from fastn_p2p_client.ipc.messages import AddPeer, AddProtocol
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.support.daemons import eventually
from tests.support.requests import ticket_of

OPTIONS = ("--no-lan", "--relay", "http://198.51.100.9:3340", "--directory", "http://198.51.100.9:3340/pkarr")
"""Unused address."""


@dataclass
class Pair:
    """alice and bob at the public network, in each other's address books and connected, with Mail."""

    alice: HostDaemon
    bob: HostDaemon
    bob_host: Host


@pytest.fixture
def pair(lab: Lab) -> Pair:
    hosts = {name: lab.host(name, lab.net, ipv6=False) for name in ("alice", "bob")}
    daemons = {name: host.daemon() for name, host in hosts.items()}
    for daemon in daemons.values():
        daemon.launch(*OPTIONS)
    for name, daemon in daemons.items():
        assert daemon.wait_ready(), daemon.report()
        daemon.identity(name)
        with daemon.client() as client:
            client.control(AddProtocol(name, "Mail", "default"), b"{}")
    alice, bob = daemons["alice"], daemons["bob"]
    for daemon, peer, name in ((alice, bob, "bob"), (bob, alice, "alice")):
        with daemon.client() as client:
            client.control(AddPeer(ticket_of(peer, name), name))
    ran(alice, "call", "bob", "Echo", "--data", '{"message": "hello"}')
    return Pair(alice, bob, hosts["bob"])


def ran(daemon: HostDaemon, *arguments: str, input: str | None = None) -> str:
    done = daemon.cli(*arguments, input=input)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def known_addresses(daemon: HostDaemon, peer: str) -> tuple[str, ...]:
    """Addresses in the newest record that the daemon's address book has of the peer."""
    saved = json.loads((daemon.home.peers / f"{peer}.json").read_text())
    return read_record(base64.b64decode(saved["record"])).endpoints[0].addresses


def test_a_peer_that_moves_tells_those_who_know_it(pair: Pair) -> None:
    moved_to = pair.bob_host.set_address()
    began = time.monotonic()
    eventually(
        lambda: any(moved_to in address for address in known_addresses(pair.alice, "bob")),
        "alice has bob's new address",
    )
    print(f"known {time.monotonic() - began:.3f} s after the change")


def test_mail_moves_at_once_when_its_recipient_starts_elsewhere(pair: Pair) -> None:
    """alice cannot know where bob is: he connects to her, because they were connected before."""
    pair.bob.stop()
    ran(pair.alice, "mail", "send", "bob", "--subject", "Kept", input="At noon.")
    pair.bob_host.set_address()
    pair.bob.launch(*OPTIONS)
    assert pair.bob.wait_ready(), pair.bob.report()
    began = time.monotonic()
    eventually(lambda: "Kept" in ran(pair.bob, "mail", "list"), "the mail has come")
    print(f"delivered {time.monotonic() - began:.3f} s after bob's daemon was ready")


def test_an_identity_that_goes_offline_and_comes_back_is_heard_of(pair: Pair) -> None:
    ran(pair.bob, "identity-offline", "bob")
    eventually(
        lambda: not any("bob" in each.identities for each in pair.alice.status().connections), "alice knows of it"
    )
    ran(pair.alice, "mail", "send", "bob", "--subject", "Kept", input="At noon.")
    ran(pair.bob, "identity-online", "bob")
    eventually(lambda: "Kept" in ran(pair.bob, "mail", "list"), "the mail has come")
    eventually(lambda: ran(pair.alice, "mail", "outbox") == "", "alice knows that it has come")
