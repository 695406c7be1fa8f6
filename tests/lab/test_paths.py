"""Paths through NATs: direct where both NATs let it, else over the relay. There is nothing but a relay of our own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastn_p2p_actors.credentials import RecordEndpoint, read_record
from fastn_p2p_client.ipc.messages import AddPeer
from fastn_p2p_client.tickets import Ticket
from tests.lab.daemons import HostDaemon
from tests.lab.lab import Lab
from tests.support.daemons import eventually
from tests.support.requests import ticket_of

RELAY = "198.51.100.1:3340"
_ROOT = Path(__file__).resolve().parents[2]
NO_RELAY = "http://198.51.100.9:3340"
"""Unused address."""


@dataclass
class Homes:
    """Daemons behind routers without IPv6: with it, a daemon would know its outside address by itself."""

    lab: Lab
    cone: HostDaemon
    other_cone: HostDaemon
    symmetric: HostDaemon
    blocked: HostDaemon
    """No UDP leaves its home."""
    lonely: HostDaemon
    """Behind a cone NAT, without a relay."""
    public: list[HostDaemon]
    """Two at the public network, without a relay."""


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    with Lab() as lab:
        relay = lab.host("relay", lab.net, address="198.51.100.1").popen(
            [sys.executable, "-m", "fastn_p2p", "relay", "--listen", RELAY], stdout=subprocess.PIPE, text=True
        )
        names = ("cone", "other_cone", "symmetric", "blocked", "lonely")
        routers = {name: lab.router("cone", ipv6=False, wait=False) for name in names}
        routers["symmetric"].wait_ready()
        routers["symmetric"].set_nat("symmetric")
        for router in routers.values():
            router.wait_ready()
        routers["blocked"].block_udp()
        hosts = {name: lab.host(name, router.lan) for name, router in routers.items()}
        hosts |= {name: lab.host(name, lab.net) for name in ("public0", "public1")}
        assert relay.stdout is not None
        assert "relay" in relay.stdout.readline()
        with ThreadPoolExecutor() as threads:
            daemons = dict(zip(hosts, threads.map(lambda name: _start(hosts[name].daemon(), name), hosts), strict=True))
        public = [daemons.pop("public0"), daemons.pop("public1")]
        yield Homes(lab, **daemons, public=public)


def _start(daemon: HostDaemon, name: str) -> HostDaemon:
    """Start a daemon, with an identity of that name online."""
    has_relay = name != "lonely" and not name.startswith("public")
    daemon.launch("--relay", f"http://{RELAY}" if has_relay else NO_RELAY)
    assert daemon.wait_ready(), daemon.report()
    daemon.identity(name)
    if has_relay:
        eventually(lambda: _endpoint(daemon, name).relays, "it is at the relay")
    return daemon


def _introduce(caller: HostDaemon, callee: HostDaemon, name: str) -> None:
    with caller.client() as client:
        client.control(AddPeer(ticket_of(callee, name), name))


def _call(caller: HostDaemon, callee: HostDaemon, name: str) -> None:
    _introduce(caller, callee, name)
    called = caller.cli("call", name, "Echo", "--data", '{"message": "hello"}')
    assert called.returncode == 0, called.stderr


def _paths(daemon: HostDaemon) -> set[str]:
    return {connection.path for connection in daemon.status().connections}


def _endpoint(daemon: HostDaemon, name: str) -> RecordEndpoint:
    """How the daemon's ticket says that it is reached."""
    return read_record(Ticket(ticket_of(daemon, name)).record_bytes).endpoints[0]


def _has_outside_address(daemon: HostDaemon, name: str) -> bool:
    return any(address.startswith("198.51.100.") for address in _endpoint(daemon, name).addresses)


def test_two_cone_nats_get_a_direct_path(homes: Homes) -> None:
    for name in ("cone", "other_cone"):
        daemon = getattr(homes, name)
        eventually(lambda: _has_outside_address(daemon, name), f"{name} knows its outside address")  # noqa: B023
    began = time.monotonic()
    _call(homes.cone, homes.other_cone, "other_cone")
    eventually(lambda: "direct" in _paths(homes.cone), "the caller has a direct path")
    print(f"direct {time.monotonic() - began:.3f} s after the command began")
    eventually(lambda: "direct" in _paths(homes.other_cone), "the callee has a direct path")


def test_behind_a_symmetric_nat_calls_use_the_relay(homes: Homes) -> None:
    _call(homes.symmetric, homes.other_cone, "other_cone")
    assert _paths(homes.symmetric) == {"relayed"}
    _call(homes.other_cone, homes.symmetric, "symmetric")


def test_without_udp_calls_use_the_relay(homes: Homes) -> None:
    _call(homes.blocked, homes.other_cone, "other_cone")
    assert _paths(homes.blocked) == {"relayed"}
    _call(homes.other_cone, homes.blocked, "blocked")


@pytest.mark.lab_long
@pytest.mark.timeout(120)
def test_a_relayed_peer_that_floods_takes_no_handshakes_from_others(homes: Homes) -> None:
    """All of them come from the address of the relay: each endpoint has a rate of its own."""
    endpoint = _endpoint(homes.other_cone, "other_cone").delegation.endpoint.hex()
    command = [sys.executable, "-m", "tests.lab.handshake_flood", f"http://{RELAY}", endpoint]
    flood = homes.lab.hosts["symmetric"].popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    assert flood.stdout is not None
    try:
        while int(flood.stdout.readline()) < 10:
            pass
        old = homes.blocked.kill_actor("network")  # so that it must shake hands anew
        homes.blocked.wait_actor("network", not_pid=old)
        _call(homes.blocked, homes.other_cone, "other_cone")
        assert _paths(homes.blocked) == {"relayed"}
        refused = int(flood.stdout.readline())
        while int(flood.stdout.readline()) == refused:
            pass
    finally:
        flood.kill()


def test_two_peers_tell_a_daemon_its_outside_address(homes: Homes) -> None:
    """Without a relay: a single peer is not believed."""
    _call(homes.lonely, homes.public[0], "public0")
    assert not _has_outside_address(homes.lonely, "lonely")
    _call(homes.lonely, homes.public[1], "public1")
    eventually(lambda: _has_outside_address(homes.lonely, "lonely"), "the second report is believed")
