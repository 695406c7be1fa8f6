"""Daemons of one LAN find each other by ID52 alone: no ticket, no relay, no directory."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest

from fastn_p2p_actors.credentials.lan_record import lan_label
from fastn_p2p_actors.network.discovery.lan.messages import encode_announcement, encode_queries, labels_in
from fastn_p2p_client import PublicKey
from fastn_p2p_client.ipc.messages import SetIdentityOnline
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.segment import Segment
from tests.lab.test_lan_source import GROUP, listening
from tests.support.daemons import DEADLINE, eventually


def started(*daemons: HostDaemon) -> None:
    for daemon in daemons:
        daemon.launch()
    for daemon in daemons:
        assert daemon.wait_ready(), daemon.report()


def call(caller: HostDaemon, callee: str, identity: str = "alice") -> None:
    done = caller.cli("call", callee, "Echo", "--as", identity, input='{"message": "hi"}')
    assert done.returncode == 0, f"{done.stderr}\n{caller.report()}"
    assert "hi" in done.stdout


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_hosts_of_one_family(lab: Lab, office: Segment, family: str) -> None:
    daemons = []
    for name in ("alice", "bob"):
        host = lab.host(name)
        host.attach(office, ipv4=family == "IPv4", ipv6=family == "IPv6")
        daemons.append(host.daemon(network="lan"))
    alice, bob = daemons
    started(alice, bob)
    bob_id = bob.identity("bob")
    alice_id = alice.identity("alice")
    call(alice, bob_id)
    call(bob, alice_id, "bob")


def test_two_daemons_of_a_host_and_one_that_waits(lab: Lab, office: Segment) -> None:
    """Both daemons of the second host are found; a program that waits hears at once when an identity comes online."""
    alice = lab.host("alice", office).daemon()
    host = lab.host("host", office)
    bob, carol = host.daemon("first"), host.daemon("second")
    started(alice, bob, carol)
    alice.identity("alice", echo=False)
    bob_id = bob.identity("bob", online=False)
    waited = threading.Event()

    def wait() -> None:
        with alice.client() as client:
            client.wait_until_online("alice", bob_id, timeout=DEADLINE)
        waited.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    call(alice, carol.identity("carol"))
    assert not waited.is_set()
    with bob.client() as client:
        client.control(SetIdentityOnline("bob", True))
    assert waited.wait(DEADLINE), alice.report()
    waiting.join()
    call(alice, bob_id)


def retried_call(caller: HostDaemon, callee: str) -> None:
    with caller.client() as client:
        assert client.call("alice", callee, "Echo", request={"message": "hi"}, timeout=DEADLINE, retry=True)


def test_one_of_two_interfaces_goes_away(lab: Lab) -> None:
    """Retried calls go on over the other one, and a peer that was never called is found there."""
    first, second = lab.lan(), lab.lan()
    hosts = [lab.host(name, first, second) for name in ("alice", "bob")]
    alice, bob = (host.daemon(network="lan") for host in hosts)
    started(alice, bob)
    alice.identity("alice", echo=False)
    bob_id = bob.identity("bob")
    call(alice, bob_id)
    hosts[1].detach(hosts[1].interfaces["eth0"])
    retried_call(alice, bob_id)
    retried_call(alice, bob.identity("carol"))
    hosts[1].attach(first)
    hosts[0].detach(hosts[0].interfaces["eth1"])
    retried_call(alice, bob_id)
    retried_call(alice, bob.identity("dave"))


def test_network_that_comes_later(lab: Lab, office: Segment) -> None:
    hosts = [lab.host("alice"), lab.host("bob")]
    alice, bob = (host.daemon(network="lan") for host in hosts)
    started(alice, bob)
    alice.identity("alice", echo=False)
    bob_id = bob.identity("bob")
    refused = alice.cli("call", bob_id, "Echo", "--as", "alice", input='{"message": "hi"}')
    assert refused.returncode != 0
    assert "this machine has no network; " in refused.stderr
    assert "connect this machine to a network" in alice.cli("explain", bob_id).stdout
    for host in hosts:
        host.attach(office)
    eventually(
        lambda: alice.cli("call", bob_id, "Echo", "--as", "alice", input='{"message": "hi"}').returncode == 0,
        "alice calls bob",
    )


@pytest.mark.parametrize(("network", "lan"), [("lan", "true"), ("lan", "false"), ("local", "true")])
def test_packets_leave_only_with_the_lan(lab: Lab, office: Segment, network: str, lan: str) -> None:
    daemon = lab.host("alice", office).daemon(network=network, FASTN_LAN=lan)
    with listening(lab.host("sniffer", office)) as sock:
        started(daemon)
        daemon.identity("bob")
        stranger = "i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60"
        daemon.cli("call", stranger, "Echo", "--as", "bob", input="{}")
        if (network, lan) == ("lan", "true"):
            assert labels_in(sock.recv(9000))
        else:
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                sock.recv(9000)
            assert 5353 not in udp_ports(daemon.pid("network"))


def udp_ports(pid: int) -> set[int]:
    """Local UDP ports in the network of a process."""
    lines = (Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:] for table in ("udp", "udp6"))
    return {int(line.split()[1].rpartition(":")[2], 16) for table in lines for line in table}


def test_port_that_is_taken_is_a_warning(lab: Lab, office: Segment) -> None:
    host = lab.host("alice", office)
    with host.socket() as v4, host.socket(socket.AF_INET6) as v6:
        v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        v4.bind(("0.0.0.0", 5353))
        v6.bind(("::", 5353))
        alice = host.daemon(network="lan")
        started(alice)
        assert any("LAN" in line and "5353" in line for line in alice.status().warnings)


class Flood:
    """A hostile host that sends everything that might hurt, as fast as it can."""

    def __init__(self, host: Host, label: bytes) -> None:
        self._host = host
        self._stop = threading.Event()
        forged = [
            encode_announcement(lan_label(number.to_bytes(32, "big")).encode(), b"%016d" % number, os.urandom(700))
            for number in range(10_000)
        ]
        aimed = [encode_announcement(label, b"%016d" % number, os.urandom(700)) for number in range(100)]
        records = b"".join(b"\x06%06d\0\0\1\0\1\0\0\0\x78\0\4abcd" % number for number in range(360))
        many = bytes([0, 0, 0x84, 0, 0, 0, 1, 104, 0, 0, 0, 0]) + records
        garbage = [os.urandom(600) for _ in range(100)]
        queries = list(encode_queries([label]))
        self._packets = [*forged, *aimed * 10, *[many] * 1000, *garbage * 10, *queries * 1000]
        self.sent = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with listening(self._host) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            while not self._stop.is_set():
                for packet in self._packets[self.sent % len(self._packets) :][:100]:
                    sock.sendto(packet, (GROUP, 5353))
                    self.sent += 1
                self._stop.wait(0.005)

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_hostile_host(lab: Lab, office: Segment) -> None:
    """A flood costs little processor time and no memory; calls go on, and peers are found when it is over."""
    alice, bob = (lab.host(name, office).daemon(network="lan") for name in ("alice", "bob"))
    started(alice, bob)
    alice.identity("alice", echo=False)
    bob_id = bob.identity("bob")
    label = lan_label(bytes(PublicKey(bob_id))).encode()
    call(alice, bob_id)
    process = psutil.Process(alice.pid("network"))
    before, began, used = process.memory_info().rss, time.monotonic(), sum(process.cpu_times()[:2])
    with Flood(lab.host("hostile", office), label) as flood:
        eventually(lambda: flood.sent >= 20_000, "the flood is under way")
        call(alice, bob_id)
        share = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - began)
    assert process.memory_info().rss - before < 8 << 20
    assert share < 0.25, "share of a core, calls included"
    carol_id = bob.identity("carol")
    call(alice, carol_id)
