"""Pairing by four words on a LAN, and between two homes with a relay and a directory between them."""

from __future__ import annotations

import subprocess

import pytest

from fastn_p2p.console.exit_codes import ExitCode
from tests.lab.conftest import TwoHomes
from tests.lab.daemons import HostDaemon
from tests.lab.lab import Lab
from tests.lab.segment import Segment
from tests.lab.test_roaming import RELAY, RelayProgram
from tests.support.daemons import CLI, eventually


def pair(showing: HostDaemon, typing: HostDaemon) -> None:
    """Pair the only identities of both daemons, as their owners do."""
    command = [*showing._prefix, *CLI, "pair"]
    shown = subprocess.Popen(command, env=showing.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert shown.stdout is not None
    try:
        words = shown.stdout.readline().split()
        joined = typing.cli("pair", *words)
        _, told = shown.communicate(timeout=60)
    finally:
        shown.kill()
        shown.communicate()
    assert joined.returncode == shown.returncode == 0, f"{joined.stderr}\n{told}"


def test_two_hosts_of_a_lan(lab: Lab, office: Segment) -> None:
    alice, bob = (lab.host(name, office).daemon(network="lan") for name in ("alice", "bob"))
    for daemon in (alice, bob):
        daemon.launch()
    for daemon, name in ((alice, "alice"), (bob, "bob")):
        assert daemon.wait_ready(), daemon.report()
        daemon.identity(name)
    pair(alice, bob)
    done = alice.cli("call", "bob", "Echo", input='{"message": "hi"}')
    assert done.returncode == 0, done.stderr
    assert bob.cli("peer", "list").stdout.startswith("alice\t")


@pytest.mark.parametrize("nat_kinds", [("symmetric", "symmetric")])
def test_two_homes_with_a_relay_and_a_directory(two_homes: TwoHomes) -> None:
    """Neither side can be reached directly: the directory has the words' record, and the relay carries the exchange.

    A stranger that is refused over the relay is remembered like any other, and pairing with it ends that.
    """
    program = RelayProgram(two_homes.relay)
    program.start()
    alice, bob = two_homes.alice.daemon(), two_homes.bob.daemon()
    for daemon in (alice, bob):
        daemon.launch("--network", "internet", "--relay", RELAY, "--directory", f"{RELAY}pkarr")
    id52s = []
    for daemon, name in ((alice, "alice"), (bob, "bob")):
        assert daemon.wait_ready(), daemon.report()
        id52s.append(daemon.identity(name))
    alice.cli("add-protocol", "alice", "--protocol", "Echo", "--alias", "friends", "--allow", "peers")
    call = ("call", id52s[0], "Echo", "friends")

    def is_refused() -> bool:
        """True once the record is in the directory, and the relay carries the call."""
        done = bob.cli(*call, input='{"message": "hi"}')
        assert done.returncode in (ExitCode.DENIED, ExitCode.PEER), done.stderr
        return done.returncode == ExitCode.DENIED

    eventually(is_refused, "the call has reached alice's daemon, and is refused")
    assert id52s[1] in alice.cli("peer", "pending").stdout
    pair(alice, bob)
    assert alice.cli("peer", "pending", "--json").stdout.strip() in ("", "[]")
    done = bob.cli(*call, input='{"message": "hi"}')
    assert done.returncode == 0, done.stderr
    program.kill()
