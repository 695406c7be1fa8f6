"""Some of the relays and directories of the settings are down, from the start or for good."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.load import running_load
from tests.lab.test_calls import introduce
from tests.lab.test_roaming import RELAY, RelayProgram
from tests.support.daemons import eventually


@pytest.mark.lab_long
@pytest.mark.timeout(240)
def test_calls_go_through_the_other_relay(lab: Lab) -> None:
    """Nothing else tells a daemon that its peer has another relay now: there is no directory, and UDP is blocked."""
    home = lab.router("cone", ipv6=False)
    programs = [RelayProgram(lab.host(f"relay{number}", lab.net, address=f"198.51.100.{number}")) for number in (1, 2)]
    relays = {program.url: program for program in programs}
    alice = lab.host("alice", home.lan).daemon()
    bob = lab.host("bob", lab.net, ipv6=False).daemon()
    for program in programs:
        program.start()
    for daemon in (alice, bob):
        daemon.launch("--no-lan", *(word for url in relays for word in ("--relay", url)))
    for daemon, name in ((alice, "alice"), (bob, "bob")):
        assert daemon.wait_ready(), daemon.report()
        daemon.identity(name)
    home.block_udp()
    for daemon in (alice, bob):
        eventually(lambda daemon=daemon: daemon.status().home_relay, "a relay is connected")  # type: ignore[misc]
    introduce(alice, bob, "bob")
    introduce(bob, alice, "alice")
    with running_load(alice, bob, "bob") as load:
        load.wait_transfer()
        gone = bob.status().home_relay
        relays[gone].kill()
        print(f"relay gone: calls again after {load.wait_call():.2f} s")
        for daemon in (alice, bob):
            eventually(lambda daemon=daemon: daemon.status().home_relay not in ("", gone), "the other relay is used")  # type: ignore[misc]
    load.check()
    assert load.transfers


@pytest.mark.lab_long
@pytest.mark.timeout(240)
def test_dead_servers_come_first_in_the_settings(lab: Lab) -> None:
    """A host that does not exist, and a port that refuses. UDP is blocked, so that calls need the relay."""
    home = lab.router("cone", ipv6=False)
    program = RelayProgram(lab.host("relay", lab.net, address="198.51.100.1"))
    program.start()
    relays = ("http://198.51.100.9:3340/", "http://198.51.100.1:9/", RELAY)
    options = [word for url in relays for word in ("--relay", url, "--directory", f"{url}pkarr")]
    alice = lab.host("alice", home.lan).daemon()
    bob = lab.host("bob", lab.net, ipv6=False).daemon()
    home.block_udp()
    for daemon in (alice, bob):
        daemon.launch("--no-lan", *options)
    for daemon in (alice, bob):
        assert daemon.wait_ready(), daemon.report()
    alice.identity("alice", echo=False)
    bob_id = bob.identity("bob")
    for daemon in (alice, bob):
        eventually(lambda daemon=daemon: daemon.status().home_relay == RELAY, "the third relay is connected")  # type: ignore[misc]

    def is_published() -> bool:
        (identity,) = bob.status().identities
        return any(each.place == f"{RELAY}pkarr" and each.age_ms is not None for each in identity.publications)

    eventually(is_published, "bob is in the third directory")
    called = alice.cli("call", bob_id, "Echo", "--data", '{"message": "hi"}')
    assert called.returncode == 0, called.stderr
    checked = alice.cli("netcheck").stdout
    assert checked.count("problem  relay") == checked.count("problem  directory") == 2, checked
