"""Calls and a file transfer go on when a link is cut, an address changes, UDP is blocked, or a relay restarts.

The tests of a kind share a laboratory. Each begins with a direct path between daemons that have settled.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.load import Load, running_load
from tests.lab.router import Router
from tests.lab.standing import standing
from tests.lab.test_calls import introduce
from tests.support.daemons import CLI, eventually
from tests.support.replicas import freeze, thaw

RELAY = "http://198.51.100.1:3340/"
_FILE = 8 << 20
"""Bytes of the file: none is complete in the milliseconds between seeing its transfer and disturbing it."""


class RelayProgram:
    """``fastn-p2p relay`` at port 3340 of a host, at its IPv4 address if it has one."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._program: subprocess.Popen[Any] | None = None
        self._listen = f"{host.address if host.interface.address else f'[{host.address6}]'}:3340"
        self.url = f"http://{self._listen}/"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [*CLI, "relay", "--listen", self._listen]
        self._program = self._host.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._program.stdout is not None
        assert self._program.stdout.readline()

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._program is not None
        self._program.kill()
        self._program.wait()


@dataclass
class RoamingHosts:
    """alice and bob, who have each other's tickets. With a relay only she is behind a router, else both share a LAN.

    Attributes:
        home: her router; without a relay it is where the LAN ends.
    """

    lab: Lab
    home: Router
    alice: Host
    bob: Host
    caller: HostDaemon
    callee: HostDaemon
    relay: RelayProgram | None

    @contextmanager
    def calls(self, peer: str = "bob", **options: Any) -> Iterator[Load]:
        """Calls every 100 ms, each with a deadline of a minute, and a transfer that is under way when this yields.

        All are repeated if their connection ends, and must end well.
        """
        with running_load(self.caller, self.callee, peer, file_size=_FILE, **options) as load:
            load.wait_transfer()
            yield load
        load.check()
        assert load.transfers
        print(load)

    def calls_back(self) -> AbstractContextManager[Load]:
        """The same from bob to alice."""
        return replace(self, caller=self.callee, callee=self.caller).calls(
            "alice", identity="bob", callee_identity="alice"
        )

    def settle(self) -> None:
        """Wait until the test before has no effect any more: there is a direct path, and each relay is connected."""
        for daemon in (self.caller, self.callee):
            eventually(lambda daemon=daemon: self._is_settled(daemon), "it has settled")  # type: ignore[misc]

    def _is_settled(self, daemon: HostDaemon) -> bool:
        done = daemon.cli("call", "bob" if daemon is self.caller else "alice", "Echo", "--data", '{"message": "hello"}')
        status = daemon.status()
        if done.returncode or self.relay is None:
            return done.returncode == 0
        paths = {each.path for each in status.connections}
        return "direct" in paths and "relayed" not in paths and status.home_relay == RELAY


@contextmanager
def start_hosts(lab: Lab, *, relay: bool, sites: Sequence[Path] = ()) -> Iterator[RoamingHosts]:
    """Start the daemons of both hosts. ``sites`` are folders with a ``sitecustomize.py`` for each of the two."""
    home = lab.router("cone", ipv6=not relay)  # an address of IPv6 would survive a change of the outside one
    program = RelayProgram(lab.host("relay", lab.net, address="198.51.100.1"))
    alice, bob = lab.host("alice", home.lan), lab.host("bob", lab.net if relay else home.lan, ipv6=not relay)
    environments = [{"PYTHONPATH": str(site)} for site in sites] or [{}, {}]
    caller, callee = (host.daemon(**each) for host, each in zip((alice, bob), environments, strict=True))
    for daemon in (caller, callee) if sites else ():  # a sandbox would keep its processes from reading files there
        assert daemon.cli("config", "set", "limits.sandbox", "false").returncode == 0
    arguments = ["--relay", RELAY] if relay else ["--network", "lan"]
    if relay:
        program.start()
    caller.launch(*arguments)
    callee.launch(*arguments)
    for daemon in (caller, callee):
        assert daemon.wait_ready(), daemon.report()
    caller.identity("alice")
    callee.identity("bob")
    if relay:
        for daemon in (caller, callee):
            eventually(lambda daemon=daemon: daemon.status().home_relay == RELAY, "the relay is connected")  # type: ignore[misc]
    introduce(caller, callee, "bob")
    introduce(callee, caller, "alice")
    yield RoamingHosts(lab, home, alice, bob, caller, callee, program if relay else None)


@pytest.fixture(scope="module")
def _without_relay() -> Iterator[RoamingHosts]:
    with Lab() as lab, start_hosts(lab, relay=False) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def _with_relay() -> Iterator[RoamingHosts]:
    with Lab() as lab, start_hosts(lab, relay=True) as hosts:
        yield hosts


@pytest.fixture
def direct(_without_relay: RoamingHosts) -> RoamingHosts:
    """Without a relay."""
    _without_relay.settle()
    return _without_relay


@pytest.fixture
def relayed(_with_relay: RoamingHosts) -> RoamingHosts:
    """With a relay that both daemons use."""
    _with_relay.settle()
    return _with_relay


def measure(load: Load, what: str) -> None:
    """Wait until a call that begins now is answered, and print how long that took."""
    print(f"{what}: calls again after {load.wait_call():.2f} s")


# ── without a relay ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seconds", [2, 5, 8])
@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_a_link_that_is_cut_ends_no_call(direct: RoamingHosts, seconds: float) -> None:
    """Not even calls that must not be repeated. A session goes on, too."""
    with direct.calls(retry=False) as load, standing(direct.caller, direct.callee) as both:
        load.wait_transfer()
        direct.alice.silence()
        time.sleep(seconds)
        direct.alice.silence(False)
        measure(load, f"link cut for {seconds} s, no relay")
        both.finish()
    assert both.ends == {"call": "", "session": ""}


@pytest.mark.timeout(120)
def test_the_caller_moves(direct: RoamingHosts) -> None:
    with direct.calls() as load:
        direct.alice.set_address()
        measure(load, "caller's address, no relay")


@pytest.mark.timeout(120)
def test_the_callee_moves(direct: RoamingHosts) -> None:
    """No relay and no directory knows its new address: it connects to the caller by itself."""
    with direct.calls() as load:
        direct.bob.set_address()
        measure(load, "callee's address, no relay")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_both_move_on_a_lan(direct: RoamingHosts) -> None:
    """Neither can tell the other: both announce themselves on the LAN."""
    with direct.calls() as load:
        direct.bob.set_address()
        direct.alice.set_address()
        measure(load, "both addresses, no relay")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_the_callee_moves_twice(direct: RoamingHosts) -> None:
    """Packets of the connection over the first of its new addresses still come, and the caller's get nowhere."""
    with direct.calls() as load:
        direct.bob.set_address()
        measure(load, "callee's address, no relay")
        time.sleep(2)
        direct.bob.set_address()
        measure(load, "callee's address again after 2 s, no relay")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_an_address_changes_on_a_lan_with_ipv6_only(direct: RoamingHosts) -> None:
    hosts = (direct.alice, direct.bob)
    try:
        for host in hosts:
            host.interface.set_address(None, host.address6)
        direct.settle()
        with direct.calls() as load:
            direct.alice.interface.set_address(None, direct.home.lan.network6[200])
            measure(load, "caller's address, IPv6 only")
    finally:
        for host in hosts:
            host.set_address()


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_interfaces_come_and_go(direct: RoamingHosts) -> None:
    """A laptop is docked: it gets a second address, loses the first one, and then the other way round."""
    with direct.calls() as load:
        for _ in range(2):
            before = direct.alice.interface
            direct.alice.attach(direct.home.lan)
            load.wait_call()
            direct.alice.detach(before)
            measure(load, "another interface")


@pytest.mark.lab_long
@pytest.mark.parametrize("seconds", [3, 40])
@pytest.mark.parametrize("sleeper", ["callee", "caller"])
@pytest.mark.timeout(180)
def test_a_machine_sleeps(direct: RoamingHosts, sleeper: str, seconds: float) -> None:
    """Every process of a daemon stops, also for longer than QUIC keeps a connection, and goes on."""
    daemon = direct.callee if sleeper == "callee" else direct.caller
    with direct.calls() as load:
        freeze(daemon)
        try:
            time.sleep(seconds)
        finally:
            thaw(daemon)
        measure(load, f"{sleeper} slept for {seconds} s, no relay")


# ── with a relay ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_the_outside_address_of_the_caller_changes(relayed: RoamingHosts) -> None:
    with relayed.calls() as load:
        relayed.home.reboot_outside_address()
        measure(load, "caller's outside address, relay")


@pytest.mark.lab_long
@pytest.mark.timeout(240)
def test_the_outside_address_of_the_callee_changes(relayed: RoamingHosts) -> None:
    """bob calls alice, whose router gets another address."""
    with relayed.calls_back() as load:
        relayed.home.reboot_outside_address()
        measure(load, "callee's outside address, relay")


@pytest.mark.parametrize(("seconds", "router"), [(5, "the same"), (8, "the same"), (5, "another")])
@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_a_link_that_is_cut_ends_no_call_although_a_relay_answers_first(
    relayed: RoamingHosts, seconds: float, router: str
) -> None:
    """Nor if the caller's router got another address: QUIC follows it, and the callee's iroh names the old one."""
    if router == "another":
        with relayed.calls() as load:
            relayed.home.reboot_outside_address()
            load.wait_call()
        relayed.settle()
    with relayed.calls(retry=False) as load:
        relayed.alice.silence()
        time.sleep(seconds)
        relayed.alice.silence(False)
        measure(load, f"link cut for {seconds} s, relay")


@pytest.mark.timeout(120)
def test_both_move(relayed: RoamingHosts) -> None:
    with relayed.calls() as load:
        relayed.bob.set_address()
        relayed.alice.set_address()
        measure(load, "both addresses, relay")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_the_caller_moves_while_a_relay_is_up(relayed: RoamingHosts) -> None:
    with relayed.calls() as load:
        relayed.alice.set_address()
        measure(load, "caller's address, relay")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_the_callee_moves_while_a_relay_is_up(relayed: RoamingHosts) -> None:
    with relayed.calls() as load:
        relayed.bob.set_address()
        measure(load, "callee's address, relay")


@pytest.mark.parametrize(
    "direction", ["in", *(pytest.param(each, marks=pytest.mark.lab_long) for each in ("both", "out"))]
)
@pytest.mark.timeout(120)
def test_blocked_udp_moves_calls_to_the_relay(relayed: RoamingHosts, direction: Any) -> None:
    with relayed.calls() as load:
        relayed.home.block_udp(direction)
        measure(load, f"UDP blocked ({direction}), relay")
        relayed.home.unblock()
        load.wait_call()


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_blocked_udp_ends_what_cannot_be_repeated_with_an_error(relayed: RoamingHosts) -> None:
    """Nobody knows whether the call was executed. If another connection answers first, theirs gets time to heal."""
    with relayed.calls() as load, standing(relayed.caller, relayed.callee) as both:
        load.wait_transfer()
        relayed.home.block_udp()
        began = time.monotonic()
        both.wait_ends()
        print(f"a call and a session ended {time.monotonic() - began:.2f} s after UDP was blocked")
        measure(load, "after their end")
        relayed.home.unblock()
        load.wait_call()
    assert both.ends == {"call": "connection-lost", "session": "connection-lost"}


@pytest.mark.lab_long
@pytest.mark.parametrize("back", ["with the same address", "with another address", "in another network"])
@pytest.mark.timeout(240)
def test_wifi_goes_off_and_on(relayed: RoamingHosts, back: str) -> None:
    """The host sees it."""
    alice, home = relayed.alice, relayed.home
    try:
        with relayed.calls() as load:
            alice.link(False)
            time.sleep(4)
            if back == "in another network":
                alice.move(relayed.lab.net, ipv6=False)
            else:
                alice.link(True)
                if back == "with another address":
                    alice.set_address()
            measure(load, f"Wi-Fi off for 4 s, back {back}")
    finally:
        if alice.interface.segment is not home.lan:
            alice.move(home.lan)


@pytest.mark.lab_long
@pytest.mark.parametrize("moved", ["callee", "caller"])
@pytest.mark.timeout(240)
def test_a_peer_has_moved_while_the_other_was_down(relayed: RoamingHosts, moved: str) -> None:
    """The daemon that starts again knows an old address, and the relay."""
    down, host = (relayed.caller, relayed.bob) if moved == "callee" else (relayed.callee, relayed.alice)
    with relayed.calls() as load:
        down.stop()
        host.set_address()
        down.launch("--relay", RELAY)
        assert down.wait_ready(), down.report()
        measure(load, f"{moved} moved while the other daemon was down")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_an_address_changes_while_the_relay_restarts(relayed: RoamingHosts) -> None:
    assert relayed.relay is not None
    with relayed.calls() as load:
        relayed.relay.kill()
        relayed.alice.set_address()
        measure(load, "caller's address, relay killed")
        relayed.bob.set_address()
        relayed.relay.start()
        measure(load, "callee's address, relay started")


@pytest.mark.timeout(120)
def test_the_relay_restarts(relayed: RoamingHosts) -> None:
    """Calls go through it before and after."""
    assert relayed.relay is not None
    with relayed.calls() as load:
        relayed.home.block_udp()
        load.wait_call()
        relayed.relay.kill()
        time.sleep(2)
        relayed.relay.start()
        measure(load, "relay killed for 2 s")
