"""Networks without IPv4: peers find each other by ID52 in a directory, through firewalls and over a relay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.segment import Segment
from tests.lab.test_roaming import RelayProgram
from tests.support.daemons import eventually


@dataclass
class Homes:
    """Daemons in homes whose routers drop what was not asked for, and one whose router lets no UDP through.

    Attributes:
        keys: ID52s by name.
        relay: URL.
    """

    alice: HostDaemon
    bob: HostDaemon
    blocked: HostDaemon
    keys: dict[str, str]
    relay: str


def host_of(lab: Lab, name: str, segment: Segment) -> Host:
    """Return a host with an IPv6 address alone."""
    host = lab.host(name)
    host.attach(segment, ipv4=False)
    return host


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    with Lab() as lab:
        names = ("alice", "bob", "blocked")
        routers = {name: lab.router("none", wait=False) for name in names}
        relay = RelayProgram(host_of(lab, "relay", lab.net))
        relay.start()
        daemons = {name: host_of(lab, name, router.lan).daemon() for name, router in routers.items()}
        for router in routers.values():
            router.wait_ready()
        routers["blocked"].block_udp()
        for daemon in daemons.values():
            daemon.launch("--relay", relay.url, "--directory", f"{relay.url}pkarr", "--no-lan")
        keys = {}
        for name, daemon in daemons.items():
            assert daemon.wait_ready(), daemon.report()
            keys[name] = daemon.identity(name)
        for daemon in daemons.values():
            eventually(lambda daemon=daemon: daemon.status().home_relay == relay.url, "it is at the relay")  # type: ignore[misc]
        for daemon in daemons.values():
            eventually(lambda daemon=daemon: is_published(daemon), "it is published")  # type: ignore[misc]
        yield Homes(**daemons, keys=keys, relay=relay.url)


def is_published(daemon: HostDaemon) -> bool:
    (identity,) = daemon.status().identities
    return any(each.place.endswith("/pkarr") and each.age_ms is not None for each in identity.publications)


def call(caller: HostDaemon, peer: str) -> None:
    done = caller.cli("call", peer, "Echo", "--data", '{"message": "hello"}')
    assert done.returncode == 0, f"{done.stderr}\n{caller.cli('explain', peer).stdout}"


def checks(daemon: HostDaemon) -> dict[str, Any]:
    """Checks of ``netcheck`` by their names."""
    return {each["name"]: each for each in map(json.loads, daemon.cli("netcheck", "--json").stdout.splitlines())}


def test_two_firewalls_get_a_direct_path(homes: Homes) -> None:
    call(homes.alice, homes.keys["bob"])
    pinged = homes.alice.cli("ping", homes.keys["bob"])
    assert pinged.returncode == 0, pinged.stderr
    assert "direct [2001:db8:" in pinged.stdout
    call(homes.bob, homes.keys["alice"])


def test_without_udp_calls_use_the_relay(homes: Homes) -> None:
    call(homes.blocked, homes.keys["bob"])
    call(homes.alice, homes.keys["blocked"])
    pinged = homes.alice.cli("ping", homes.keys["blocked"], "--count", "1")
    assert f"relayed {homes.relay}" in pinged.stdout, pinged.stderr


def test_netcheck_finds_nothing_wrong(homes: Homes) -> None:
    call(homes.alice, homes.keys["bob"])
    found = checks(homes.alice)
    assert {name: each for name, each in found.items() if each["state"] == "problem"} == {}
    assert found["addresses"]["text"].startswith("IPv6: ")
    for name in ("relay", "home relay", "directory", "clock"):
        assert found[name]["state"] == "ok", found[name]


def test_explain_names_each_step(homes: Homes) -> None:
    explained = homes.bob.cli("explain", homes.keys["alice"], "Echo")
    assert explained.returncode == 0, explained.stdout
    assert f"{homes.relay}pkarr" in explained.stdout
    assert "it can be called" in explained.stdout
