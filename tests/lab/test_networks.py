"""The laboratory itself: what routers do to packets, and that hosts of a LAN hear each other."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.benchmarks.processes import cpu_seconds
from tests.lab.conftest import TwoHomes
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.router import NatKind
from tests.lab.segment import Segment
from tests.support.daemons import DEADLINE, eventually

_SILENCE = 0.2
"""Seconds after which a packet that did not come is taken as dropped. A round trip takes less than a millisecond."""


@contextmanager
def _udp(host: Host, port: int = 0, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with host.socket(family) as sock:
        sock.bind(("0.0.0.0" if family == socket.AF_INET else "::", port))
        sock.settimeout(DEADLINE)
        yield sock


def _port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def _is_silent(sock: socket.socket) -> bool:
    sock.settimeout(_SILENCE)
    try:
        sock.recvfrom(2048)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(DEADLINE)
    return False


def _assert_arrival(sock: socket.socket, arrives: bool) -> None:
    """Assert that a packet that was sent has arrived, or that it was dropped."""
    if arrives:
        sock.recvfrom(2048)
    else:
        assert _is_silent(sock)


def _drain(sock: socket.socket) -> int:
    """Receive until there is nothing within a moment; the number of packets."""
    sock.settimeout(0.02)
    number = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sock.recv(2048)
            number += 1
    return number


def _seen_by(sock: socket.socket, sender: socket.socket, address: str) -> tuple[str, int]:
    """Send a packet to the socket at the address; where from it comes."""
    sender.sendto(b"where from?", (address, _port(sock)))
    return tuple(sock.recvfrom(100)[1][:2])


class TestMapping:
    def test_cone_keeps_the_port_for_every_destination(self, two_homes: TwoHomes) -> None:
        with _udp(two_homes.alice, 5000) as alice, _udp(two_homes.relay) as relay, _udp(two_homes.public) as public:
            seen = {
                _seen_by(relay, alice, two_homes.relay.address),
                _seen_by(public, alice, two_homes.public.address),
            }
        assert seen == {("198.51.100.11", 5000)}

    def test_cone_gives_another_port_when_two_hosts_use_the_same(self, two_homes: TwoHomes) -> None:
        other = two_homes.lab.host("other", two_homes.home_a.lan)
        with _udp(two_homes.alice, 5000) as alice, _udp(other, 5000) as second, _udp(two_homes.public) as public:
            seen = {_seen_by(public, each, two_homes.public.address) for each in (alice, second)}
            assert len(seen) == 2
            assert {address for address, _ in seen} == {"198.51.100.11"}

    @pytest.mark.parametrize("nat_kinds", [("symmetric", "cone")])
    def test_symmetric_gives_a_port_for_each_destination(self, two_homes: TwoHomes) -> None:
        with _udp(two_homes.alice, 5000) as alice, _udp(two_homes.relay) as relay, _udp(two_homes.public) as public:
            first = _seen_by(relay, alice, two_homes.relay.address)
            second = _seen_by(public, alice, two_homes.public.address)
            assert first == _seen_by(relay, alice, two_homes.relay.address), "a destination keeps its port"
        assert len({first, second, ("198.51.100.11", 5000)}) == 3

    @pytest.mark.parametrize("nat_kinds", [("none", "cone")])
    def test_none_translates_nothing(self, two_homes: TwoHomes) -> None:
        with _udp(two_homes.alice, 5000) as alice, _udp(two_homes.public) as public:
            assert _seen_by(public, alice, two_homes.public.address) == (two_homes.alice.address, 5000)

    @pytest.mark.parametrize("kind", ["cone", "symmetric", "none"])
    def test_only_answers_come_in(self, lab: Lab, kind: NatKind) -> None:
        home = lab.router(kind)
        alice, public, stranger = lab.host("alice", home.lan), lab.host("public", lab.net), lab.host("other", lab.net)
        with _udp(alice) as inside, _udp(public) as asked, _udp(public) as other_port, _udp(stranger) as unknown:
            mapped = _seen_by(asked, inside, public.address)
            for sock in (other_port, unknown):
                sock.sendto(b"unsolicited", mapped)
                assert _is_silent(inside)
            asked.sendto(b"answer", mapped)
            assert inside.recvfrom(100)[0] == b"answer"
        assert home.counts()["unsolicited"] == 2

    def test_cones_are_punched_and_symmetric_ones_are_not(self, two_homes: TwoHomes) -> None:
        """Both send to the address at which the public host saw the other."""
        for kind, direct in (("cone", True), ("symmetric", False)):
            two_homes.home_b.set_nat("cone" if kind == "cone" else "symmetric")
            with _udp(two_homes.alice) as alice, _udp(two_homes.bob) as bob, _udp(two_homes.public) as public:
                seen_a = _seen_by(public, alice, two_homes.public.address)
                seen_b = _seen_by(public, bob, two_homes.public.address)
                alice.sendto(b"opens the way", seen_b)
                bob.sendto(b"punched", seen_a)
                _assert_arrival(alice, direct)

    def test_flows_are_forgotten(self, lab: Lab) -> None:
        home = lab.router(timeout=0.1)
        alice, public = lab.host("alice", home.lan), lab.host("public", lab.net)
        with _udp(alice) as inside, _udp(public) as outside:
            mapped = _seen_by(outside, inside, public.address)
            assert _is_silent(inside)
            outside.sendto(b"too late", mapped)
            assert _is_silent(inside)
            while _is_silent(inside):  # a busy machine may take too long to answer
                assert _seen_by(outside, inside, public.address) == mapped, "the port is kept"
                outside.sendto(b"answer", mapped)

    @pytest.mark.parametrize("nat_kinds", [("cone", "cone"), ("symmetric", "cone")])
    def test_tcp(self, two_homes: TwoHomes) -> None:
        data = os.urandom(1 << 20)
        with two_homes.public.socket(type=socket.SOCK_STREAM) as listener:
            listener.bind(("0.0.0.0", 0))
            listener.listen()
            listener.settimeout(DEADLINE)
            with two_homes.alice.socket(type=socket.SOCK_STREAM) as caller:
                caller.settimeout(DEADLINE)
                caller.connect((two_homes.public.address, _port(listener)))
                callee, (address, _) = listener.accept()
                with callee:
                    callee.settimeout(DEADLINE)
                    assert address == "198.51.100.11"
                    received = bytearray()
                    sent = 0
                    while len(received) < len(data):
                        with contextlib.suppress(BlockingIOError):
                            sent += caller.send(data[sent : sent + 50_000], socket.MSG_DONTWAIT)
                        with contextlib.suppress(BlockingIOError):
                            received += callee.recv(100_000, socket.MSG_DONTWAIT)
                    assert received == data

    @pytest.mark.parametrize("nat_kinds", [("cone", "cone"), ("symmetric", "cone"), ("none", "cone")])
    def test_icmp_echo(self, two_homes: TwoHomes) -> None:
        for family, protocol, request, reply, address in (
            (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0, two_homes.public.address),
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129, two_homes.public.address6),
        ):
            with two_homes.alice.socket(family, socket.SOCK_DGRAM, protocol) as ping:
                ping.settimeout(DEADLINE)
                ping.sendto(struct.pack("!BBHHH", request, 0, 0, 0, 7) + b"hello", (address, 0))
                answer = ping.recv(100)
            assert (answer[0], answer[6:]) == (reply, b"\0\7hello")

    def test_ipv6_is_filtered_not_translated(self, two_homes: TwoHomes) -> None:
        six, router = socket.AF_INET6, two_homes.home_a
        dropped = router.counts().get("unsolicited", 0) + 1
        with _udp(two_homes.alice, 5000, six) as alice, _udp(two_homes.public, 0, six) as public:
            public.sendto(b"unsolicited", (two_homes.alice.address6, 5000))
            eventually(lambda: router.counts().get("unsolicited") == dropped, "the router has dropped it")
            assert _is_silent(alice)
            assert _seen_by(public, alice, two_homes.public.address6) == (two_homes.alice.address6, 5000)
            public.sendto(b"answer", (two_homes.alice.address6, 5000))
            assert alice.recvfrom(100)[0] == b"answer"

    def test_no_firewall(self, lab: Lab) -> None:
        home = lab.router("none", firewall=False)
        alice, public = lab.host("alice", home.lan), lab.host("public", lab.net)
        with _udp(alice, 5000) as inside, _udp(public) as outside:
            outside.sendto(b"from anywhere", (alice.address, 5000))
            assert inside.recvfrom(100)[0] == b"from anywhere"


class TestChange:
    def test_outside_address(self, two_homes: TwoHomes) -> None:
        with _udp(two_homes.alice, 5000) as alice, _udp(two_homes.public) as public:
            old = _seen_by(public, alice, two_homes.public.address)
            new = two_homes.home_a.reboot_outside_address()
            public.sendto(b"to where it was", old)
            assert _is_silent(alice)
            assert _seen_by(public, alice, two_homes.public.address) == (new, 5000)
            public.sendto(b"answer", (new, 5000))
            assert alice.recvfrom(100)[0] == b"answer"

    def test_address_of_a_host(self, two_homes: TwoHomes) -> None:
        old = two_homes.alice.address
        new = two_homes.alice.set_address()
        assert new != old
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            public_address = two_homes.public.address
            assert _seen_by(public, alice, public_address)[0] == "198.51.100.11"
            assert alice.getsockname()[0] == "0.0.0.0"
            alice.connect((public_address, 1))
            assert alice.getsockname()[0] == new

    def test_another_network(self, two_homes: TwoHomes) -> None:
        two_homes.alice.move(two_homes.home_b.lan)
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            assert _seen_by(public, alice, two_homes.public.address)[0] == "198.51.100.12"

    @pytest.mark.parametrize("way", ["host", "silence", "router"])
    def test_link(self, two_homes: TwoHomes, way: str) -> None:
        def cut(yes: bool) -> None:
            if way == "host":
                two_homes.alice.link(not yes)
            elif way == "silence":
                two_homes.alice.silence(yes)
            else:
                two_homes.home_a.link(not yes)

        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            destination = two_homes.public.address, _port(public)
            cut(True)
            with contextlib.suppress(OSError):
                alice.sendto(b"lost", destination)
            assert _is_silent(public)
            cut(False)
            alice.sendto(b"arrives", destination)
            while (
                public.recvfrom(100)[0] != b"arrives"
            ):  # the kernel may have kept the first one until ARP had its answer
                pass
            with _udp(two_homes.alice, 0, socket.AF_INET6) as alice6, _udp(two_homes.public, 0, socket.AF_INET6) as six:
                assert _seen_by(six, alice6, two_homes.public.address6)[0] == two_homes.alice.address6

    def test_link_and_silence_are_independent(self, two_homes: TwoHomes) -> None:
        host = two_homes.alice
        ends: list[Callable[[], None]] = [lambda: host.silence(False), lambda: host.link(True)]
        for first, second in (ends, ends[::-1]):
            host.link(False)
            host.silence()
            first()
            second()
            with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
                assert _seen_by(public, alice, two_homes.public.address)[0] == "198.51.100.11"

    @pytest.mark.parametrize("direction", ["out", "in", "both"])
    def test_blocked_udp(self, two_homes: TwoHomes, direction: str) -> None:
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            mapped = _seen_by(public, alice, two_homes.public.address)
            two_homes.home_a.block_udp(direction)  # type: ignore[arg-type]
            alice.sendto(b"out", (two_homes.public.address, _port(public)))
            _assert_arrival(public, direction == "in")
            public.sendto(b"in", mapped)
            _assert_arrival(alice, direction == "out")
            two_homes.home_a.unblock()
            assert _seen_by(public, alice, two_homes.public.address) == mapped

    def test_one_address_is_a_black_hole(self, two_homes: TwoHomes) -> None:
        two_homes.home_a.block(remote=two_homes.public.address)
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public, _udp(two_homes.relay) as relay:
            alice.sendto(b"lost", (two_homes.public.address, _port(public)))
            assert _is_silent(public)
            assert _seen_by(relay, alice, two_homes.relay.address)[0] == "198.51.100.11"


class TestImpairment:
    def test_delay_and_jitter(self, two_homes: TwoHomes) -> None:
        two_homes.home_a.impair(delay_ms=20, jitter_ms=5)
        round_trips = []
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            for _ in range(10):
                began = time.perf_counter()
                public.sendto(b"answer", _seen_by(public, alice, two_homes.public.address))
                alice.recvfrom(100)
                round_trips.append(time.perf_counter() - began)
        assert min(round_trips) >= 0.030
        assert statistics.median(round_trips) >= 0.035
        assert max(round_trips) - min(round_trips) > 0.001

    def test_loss(self, two_homes: TwoHomes) -> None:
        sent = 2000
        two_homes.home_a.impair(loss=0.1, direction="out")
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            arrived = lost = 0

            def is_over(so_far: int) -> bool:
                """Each packet has arrived, or the router has lost it, which may stand still for a moment."""
                nonlocal arrived, lost
                arrived, lost = arrived + _drain(public), two_homes.home_a.counts()["out_lost"]
                return arrived + lost >= so_far

            for number in range(sent // 50):
                for _ in range(50):
                    alice.sendto(b"x", (two_homes.public.address, _port(public)))
                eventually(partial(is_over, 50 * (number + 1)), "each packet has arrived or is lost")
        assert arrived == sent - lost
        assert 0.08 * sent < lost < 0.12 * sent

    def test_rate(self, two_homes: TwoHomes) -> None:
        """The queue of 64 KiB fills, and what does not fit is dropped."""
        two_homes.home_a.impair(rate=100_000, direction="out")
        with _udp(two_homes.alice) as alice, _udp(two_homes.public) as public:
            destination = two_homes.public.address, _port(public)
            began = time.perf_counter()
            for _ in range(100):
                alice.sendto(bytes(1172), destination)  # 1,200 bytes with its headers
            took = time.perf_counter() - began
            for _ in range(25):
                public.recvfrom(2048)
            assert time.perf_counter() - began >= 0.29  # 25 * 1,200 bytes
        fits = 64 * 1024 / 1200 + took * 100_000 / 1200
        assert 90 - fits < two_homes.home_a.counts()["out_overflowed"] <= 60


@pytest.mark.lab_long
def test_router_is_fast_enough(two_homes: TwoHomes) -> None:
    """A packet takes a router about 20 µs of processor time: with ten times that, tests would measure the router."""
    data = bytes(32 << 20)
    with two_homes.public.socket(type=socket.SOCK_STREAM) as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        listener.settimeout(DEADLINE)
        with two_homes.alice.socket(type=socket.SOCK_STREAM) as caller:
            caller.connect((two_homes.public.address, _port(listener)))
            with listener.accept()[0] as callee, ThreadPoolExecutor(1) as executor:
                callee.settimeout(DEADLINE)
                before = cpu_seconds(two_homes.home_a.pid)
                sending = executor.submit(caller.sendall, data)
                received = 0
                while received < len(data):
                    received += len(callee.recv(1 << 20))
                sending.result()
    counts = two_homes.home_a.counts()
    packets = counts["out_forwarded"] + counts["in_forwarded"]
    assert packets > 20_000
    assert cpu_seconds(two_homes.home_a.pid) - before < packets * 200e-6


class TestLan:
    def test_multicast(self, lab: Lab, office: Segment) -> None:
        one, two, three = (lab.host(name, office) for name in ("one", "two", "three"))
        group = "224.0.0.251"
        with contextlib.ExitStack() as stack:
            listeners = []
            for host in (two, three):
                listener = stack.enter_context(_udp(host, 5353))
                member = socket.inet_aton(group) + socket.inet_aton(host.address)
                listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                listeners.append(listener)
            sender = stack.enter_context(_udp(one))
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(one.address))
            sender.sendto(b"hello, LAN", (group, 5353))
            assert [each.recvfrom(100) for each in listeners] == [(b"hello, LAN", (one.address, _port(sender)))] * 2

    def test_multicast_over_ipv6(self, lab: Lab, office: Segment) -> None:
        one, two = lab.host("one", office), lab.host("two", office)
        with _udp(two, 5353, socket.AF_INET6) as listener, _udp(one, 0, socket.AF_INET6) as sender:
            member = socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("@I", two.interface.index)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            sender.sendto(b"hello, LAN", ("ff02::fb", 5353, 0, one.interface.index))
            data, (address, *_) = listener.recvfrom(100)
            assert data == b"hello, LAN"
            assert address.startswith("fe80::"), "from the link-local address"

    def test_multicast_stays_in_its_lan(self, two_homes: TwoHomes) -> None:
        with _udp(two_homes.bob, 5353) as bob, _udp(two_homes.alice) as alice:
            member = socket.inet_aton("224.0.0.251") + socket.inet_aton(two_homes.bob.address)
            bob.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            alice.sendto(b"hello", ("224.0.0.251", 5353))
            assert _is_silent(bob)

    def test_several_interfaces(self, lab: Lab) -> None:
        lans = [lab.lan(), lab.lan()]
        both = lab.host("both", *lans)
        assert len(both.interfaces) == 2
        for number, lan in enumerate(lans):
            other = lab.host(f"in{number}", lan)
            address = both.interfaces[f"eth{number}"].address
            with _udp(both) as listener, _udp(other) as sender:
                assert _seen_by(listener, sender, str(address))[0] == other.address
        both.detach(both.interfaces["eth0"])
        assert list(both.interfaces) == ["eth1"]

    def test_no_way_between_lans(self, lab: Lab) -> None:
        one, two = lab.host("one", lab.lan()), lab.host("two", lab.lan())
        with _udp(one) as sender, _udp(two) as listener, pytest.raises(OSError, match="unreachable"):
            sender.sendto(b"hello", (two.address, _port(listener)))
