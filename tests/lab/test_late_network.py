"""Daemons in mode ``internet`` that start without any network, and whose network comes and goes.

There is nothing but a relay and a directory of our own.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.router import Router
from tests.lab.test_roaming import RELAY, RelayProgram
from tests.support.daemons import eventually

DIRECTORY = f"{RELAY}pkarr"
_SERVERS = ("--relay", RELAY, "--directory", DIRECTORY, "--no-lan")
"""Options of the daemons. On a LAN they would find each other without the servers."""
_REQUEST = '{"message": "hi"}'


@dataclass
class Plugless:
    """alice and bob, whose hosts have no network interface yet. Her network will be behind a router."""

    home: Router
    lab: Lab
    hosts: dict[str, Host]
    alice: HostDaemon
    bob: HostDaemon
    bob_id: str

    def call(self) -> tuple[int, str]:
        """Call bob by his ID52; exit code and errors."""
        done = self.alice.cli("call", self.bob_id, "Echo", input=_REQUEST)
        return done.returncode, done.stderr

    def plug_in(self) -> None:
        """Connect both hosts to their networks."""
        self.hosts["alice"].attach(self.home.lan)
        self.hosts["bob"].attach(self.lab.net, ipv6=False)


@pytest.fixture
def plugless(lab: Lab) -> Plugless:
    home = lab.router("cone", ipv6=False, wait=False)
    relay = RelayProgram(lab.host("relay", lab.net, address="198.51.100.1"))
    hosts = {name: lab.host(name) for name in ("alice", "bob")}
    alice, bob = (host.daemon() for host in hosts.values())
    for daemon in (alice, bob):
        daemon.launch(*_SERVERS)
    relay.start()
    for daemon in (alice, bob):
        assert daemon.wait_ready(), daemon.report()
    home.wait_ready()
    alice.identity("alice", echo=False)
    return Plugless(home, lab, hosts, alice, bob, bob.identity("bob"))


def problems(daemon: HostDaemon) -> dict[str, str]:
    """Text of each problem that ``netcheck`` sees, by the name of its check."""
    done = daemon.cli("netcheck", "--json")
    checks = map(json.loads, done.stdout.splitlines())
    found = {each["name"]: each["text"] for each in checks if each["state"] == "problem"}
    assert bool(found) == (done.returncode != 0)
    return found


def publication(daemon: HostDaemon) -> tuple[bool, str]:
    """Return whether its identity has been published at the directory, and the problem since then."""
    (identity,) = daemon.status().identities
    found = [each for each in identity.publications if each.place == DIRECTORY]
    return any(each.age_ms is not None for each in found), "".join(each.problem for each in found)


@pytest.mark.timeout(240)
def test_the_network_comes_later_and_goes(plugless: Plugless) -> None:
    alice, bob = plugless.alice, plugless.bob
    code, words = plugless.call()
    assert code == ExitCode.PEER, words
    assert "this machine has no network; " in words
    assert "connect this machine to a network" in alice.cli("explain", plugless.bob_id).stdout
    assert alice.status().home_relay == ""
    assert {"addresses", "relay", "home relay", "directory"} <= problems(alice).keys()
    eventually(lambda: publication(bob)[1], "bob's daemon says why he is not published")
    assert not publication(bob)[0]

    began = time.monotonic()
    plugless.plug_in()
    eventually(lambda: publication(bob) == (True, ""), "bob is published")
    print(f"published {time.monotonic() - began:.2f} s after the network came")
    eventually(lambda: plugless.call()[0] == 0, "alice calls bob by his ID52")
    print(f"called {time.monotonic() - began:.2f} s after the network came")
    for daemon in (alice, bob):
        eventually(lambda daemon=daemon: daemon.status().home_relay == RELAY, "the relay is connected")  # type: ignore[misc]
    eventually(lambda: not problems(alice), "nothing is wrong")

    plugless.hosts["alice"].detach()
    eventually(lambda: alice.status().home_relay == "", "the relay is gone")
    eventually(lambda: "addresses" in problems(alice), "the network is gone")
