"""The record source of the LAN, between hosts of a laboratory, without daemons."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from fastn_p2p_actors.credentials.dns_packet import txt_data, txt_value
from fastn_p2p_actors.credentials.lan_record import lan_label, open_from_lan, seal_for_lan
from fastn_p2p_actors.network.discovery.lan.lan_source import LanSource, LanUnavailable
from fastn_p2p_actors.network.discovery.lan.messages import encode_announcement, encode_queries, labels_in
from fastn_p2p_actors.network.serving.registry import OnlineIdentity
from fastn_p2p_actors.runtime.mailbox import Sender
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.segment import Segment
from tests.support.daemons import DEADLINE, eventually
from tests.support.signer import Signer

T = TypeVar("T")

BOB = bytes(Signer("bob").key)
CAROL = bytes(Signer("carol").key)
GROUP = "224.0.0.251"


class SourceAt:
    """A LAN source that runs in a host, with an event loop of its own.

    Attributes:
        heard: announcements that came without a search.
    """

    def __init__(self, host: Host) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=host.call, args=(lambda: asyncio.run(self._main()),))
        self._thread.start()
        assert self._ready.wait(DEADLINE)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.source = LanSource(lambda key, record: self.heard.append((key, record)), time.time)
        self.source.open()
        self._ready.set()
        await self._stop.wait()
        self.source.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        self.run(act())

    def search(self, key: bytes) -> list[bytes]:
        found: list[bytes] = []
        self.run(self.source.search(key, found.append))
        return found

    def assert_finds(self, key: bytes, records: set[bytes]) -> None:
        """Assert that a search finds these records. On a busy machine the first one may end too soon."""
        eventually(lambda: set(self.search(key)) == records, f"{records} are found")

    def publish(self, key: bytes, record: bytes) -> None:
        self.do(lambda: self.source.publish(identity_of(key, record)))

    def unpublish(self, key: bytes) -> None:
        self.do(lambda: self.source.unpublish(identity_of(key, b"")))

    def links(self) -> set[tuple[str, int]]:
        return {(link.interface, link.family) for link in self.source._multicast.links}

    def wait_links(self, number: int) -> None:
        eventually(lambda: len(self.links()) == number, f"{number} links, not {self.links()}")

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(DEADLINE)


def identity_of(key: bytes, record: bytes) -> OnlineIdentity:
    names = {BOB: "bob", CAROL: "carol"}
    identity = OnlineIdentity(names[key], Signer(names[key]).key, Sender(0, 0))
    identity.record = record
    return identity


@pytest.fixture
def sources() -> Iterator[Callable[[Host], SourceAt]]:
    with contextlib.ExitStack() as closing:

        def at(host: Host) -> SourceAt:
            source = SourceAt(host)
            closing.callback(source.close)
            return source

        yield at


@contextlib.contextmanager
def listening(host: Host) -> Iterator[socket.socket]:
    """A socket of the host that hears the group, as any program there can."""
    with host.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((GROUP, 5353))
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(host.address))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host.address))
        sock.settimeout(DEADLINE)
        yield sock


class TestFinding:
    @pytest.mark.parametrize("family", ["both", "IPv4", "IPv6"])
    def test_finds_by_key(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt], family: str) -> None:
        hosts = [lab.host(name) for name in ("alice", "bob")]
        for host in hosts:
            if family == "IPv4":
                host.namespace.sysctl({"ipv6/conf/default/disable_ipv6": 1})
            host.attach(office, ipv4=family != "IPv6", ipv6=family != "IPv4")
        alice, bob = map(sources, hosts)
        for source in (alice, bob):
            source.wait_links(2 if family == "both" else 1)
        bob.publish(BOB, b"where bob is")
        alice.assert_finds(BOB, {b"where bob is"})
        assert alice.search(CAROL) == []

    def test_several_daemons_of_hosts(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        one, two = lab.host("one", office), lab.host("two", office)
        alice, neighbor, bob, carol = sources(one), sources(one), sources(two), sources(two)
        bob.publish(BOB, b"where bob is")
        carol.publish(CAROL, b"where carol is")
        for caller in (alice, neighbor, carol):
            caller.assert_finds(BOB, {b"where bob is"})
        for caller in (alice, neighbor, bob):
            caller.assert_finds(CAROL, {b"where carol is"})

    def test_two_daemons_of_one_identity(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        first, second, alice = (sources(lab.host(name, office)) for name in ("first", "second", "alice"))
        first.publish(BOB, b"here")
        second.publish(BOB, b"there")
        alice.assert_finds(BOB, {b"here", b"there"})

    def test_every_interface(self, lab: Lab, sources: Callable[[Host], SourceAt]) -> None:
        lans = [lab.lan(), lab.lan()]
        bob = sources(lab.host("bob", *lans))
        bob.publish(BOB, b"record")
        for number, lan in enumerate(lans):
            assert set(sources(lab.host(f"host{number}", lan)).search(BOB)) == {b"record"}

    def test_second_host_that_asks_within_a_second(
        self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]
    ) -> None:
        bob = sources(lab.host("bob", office))
        bob.publish(BOB, b"record")
        for number in range(3):
            assert set(sources(lab.host(f"host{number}", office)).search(BOB)) == {b"record"}

    def test_new_record_replaces_the_old_one(
        self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]
    ) -> None:
        alice, bob = sources(lab.host("alice", office)), sources(lab.host("bob", office))
        bob.publish(BOB, b"old")
        alice.assert_finds(BOB, {b"old"})
        bob.publish(BOB, b"new")
        eventually(lambda: (BOB, b"new") in alice.heard, "alice hears of it unasked")
        alice.assert_finds(BOB, {b"new"})

    def test_searched_before_it_is_there(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        alice, bob = sources(lab.host("alice", office)), sources(lab.host("bob", office))
        assert alice.search(BOB) == []
        bob.publish(CAROL, b"nobody asked for carol")
        bob.publish(BOB, b"record")
        eventually(lambda: alice.heard, "alice hears of it")
        assert alice.heard == [(BOB, b"record")], "once, though it came in both families"

    def test_withdrawn_is_not_found(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        alice, bob = sources(lab.host("alice", office)), sources(lab.host("bob", office))
        bob.publish(BOB, b"record")
        assert alice.search(BOB)
        with listening(lab.host("sniffer", office)) as sock:
            bob.unpublish(BOB)
            packet = sock.recv(9000)
            assert labels_in(packet) == {lan_label(BOB).encode()}
        assert alice.search(BOB) == []


class TestInterfaces:
    def test_none_then_one_then_another_network(self, lab: Lab, sources: Callable[[Host], SourceAt]) -> None:
        home, office = lab.lan(), lab.lan()
        laptop = lab.host("laptop")
        alice = sources(laptop)
        with pytest.raises(LanUnavailable, match="in no LAN"):
            alice.search(BOB)
        for lan, key in ((home, BOB), (office, CAROL)):
            source = sources(lab.host(lan.name, lan))
            source.publish(key, b"record")
            laptop.move(lan)
            alice.wait_links(2)
            alice.assert_finds(key, {b"record"})
        assert alice.search(BOB) == []

    def test_callers_that_waited_hear_on_a_new_link(self, lab: Lab, sources: Callable[[Host], SourceAt]) -> None:
        home, office = lab.lan(), lab.lan()
        bob = sources(lab.host("bob", office))
        bob.publish(BOB, b"record")
        laptop = lab.host("laptop", home)
        alice = sources(laptop)
        assert alice.search(BOB) == []
        laptop.attach(office)
        eventually(lambda: alice.heard, "alice finds bob without another search")

    def test_publisher_that_comes_later(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        laptop = lab.host("laptop")
        bob, alice = sources(laptop), sources(lab.host("alice", office))
        bob.publish(BOB, b"record")
        assert alice.search(BOB) == []
        laptop.attach(office)
        eventually(lambda: alice.heard, "bob announces himself where he arrives")

    def test_pulled_cable(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        host = lab.host("bob", office)
        bob, alice = sources(host), sources(lab.host("alice", office))
        bob.publish(BOB, b"record")
        host.link(False)
        bob.wait_links(0)
        assert alice.search(BOB) == []
        host.link(True)
        eventually(lambda: alice.heard, "bob announces himself when the cable is back")

    def test_ports_of_a_bridge_are_left_to_the_bridge(
        self,
        lab: Lab,
        office: Segment,
        sources: Callable[[Host], SourceAt],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A host with many containers has a port for each."""
        monkeypatch.setattr("fastn_p2p_actors.network.discovery.lan.interfaces._SYSFS", tmp_path)
        (tmp_path / "eth1" / "brport").mkdir(parents=True)
        host = lab.host("host", office, lab.lan())
        source = sources(host)
        source.wait_links(2)
        assert source.links() == {("eth0", socket.AF_INET), ("eth0", socket.AF_INET6)}

    def test_without_notice_from_the_kernel(
        self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without netlink, as under some service managers, interfaces are polled."""
        monkeypatch.setattr("fastn_p2p_actors.network.discovery.local_addresses._POLL", 0.05)
        monkeypatch.setattr(socket, "NETLINK_ROUTE", 250)  # no such protocol
        monkeypatch.delattr(socket, "if_nameindex")  # it uses netlink as well
        laptop = lab.host("laptop")
        alice, bob = sources(laptop), sources(lab.host("bob", office))
        bob.publish(BOB, b"record")
        laptop.attach(office)
        alice.wait_links(2)
        alice.assert_finds(BOB, {b"record"})

    def test_port_taken_by_a_selfish_program(
        self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastn_p2p_actors.network.discovery.lan.multicast._RETRY", 0.05)
        host = lab.host("alice", office)
        with host.socket() as v4, host.socket(socket.AF_INET6) as v6:
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            v4.bind(("0.0.0.0", 5353))
            v6.bind(("::", 5353))
            alice = sources(host)
            assert alice.source.problem == "UDP port 5353 cannot be opened: Address already in use"
            identity = identity_of(CAROL, b"record")
            alice.do(lambda: alice.source.publish(identity))
            assert identity.publications["LAN"].problem == alice.source.problem
            with pytest.raises(LanUnavailable, match="5353"):
                alice.search(BOB)
        alice.wait_links(2)
        assert alice.source.problem == ""
        eventually(lambda: identity.publications["LAN"].published, "it is announced as soon as the port is free")
        assert identity.publications["LAN"].problem == ""


class TestOtherResponders:
    """python-zeroconf at the other end: that what daemons send is multicast DNS, and that they read it from others."""

    SUBTYPE = f"_{lan_label(BOB)}._sub._fastn-p2p._udp.local."
    INSTANCE = "someone._fastn-p2p._udp.local."

    def test_finds_a_daemon(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        bob = sources(lab.host("bob", office))
        bob.publish(BOB, b"record of bob" * 40)
        other = lab.host("other", office)

        async def find() -> bytes:
            found: asyncio.Queue[str] = asyncio.Queue()
            async with AsyncZeroconf(interfaces=[other.address]) as zeroconf:
                browser = AsyncServiceBrowser(
                    zeroconf.zeroconf, self.SUBTYPE, handlers=[lambda name, **_: found.put_nowait(name)]
                )
                async with asyncio.timeout(DEADLINE):
                    info = AsyncServiceInfo(self.SUBTYPE, await found.get())
                    while info.text in (None, b""):
                        await info.async_request(zeroconf.zeroconf, 1000)
                await browser.async_cancel()
            assert info.text is not None
            return txt_value(info.text)

        sealed = other.call(lambda: asyncio.run(find()))
        assert open_from_lan(BOB, sealed) == b"record of bob" * 40

    def test_is_found(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        alice = sources(lab.host("alice", office))
        other = lab.host("other", office)
        text = txt_data(seal_for_lan(BOB, b"record of bob"))
        info = AsyncServiceInfo(
            self.SUBTYPE, self.INSTANCE, 4000, properties=text, server="other.local.", addresses=[bytes(4)]
        )

        async def search() -> list[bytes]:
            async with AsyncZeroconf(interfaces=[other.address]) as zeroconf:
                announced = await zeroconf.async_register_service(info, cooperating_responders=True)
                await announced
                # It answers at most once a second, a moment after it has announced not at all.
                return await asyncio.to_thread(eventually, lambda: alice.search(BOB), "alice finds it")

        assert set(other.call(lambda: asyncio.run(search()))) == {b"record of bob"}


class TestStrangers:
    def test_learn_nothing(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        bob = sources(lab.host("bob", office))
        record = b"record of bob at 10.1.0.30:4000 with " + BOB
        with listening(lab.host("sniffer", office)) as sock:
            bob.publish(BOB, record)
            packet = sock.recv(9000)
            for secret in (b"bob", BOB, Signer("bob").key.id52.encode(), b"10.1.0.30", os.uname().nodename.encode()):
                assert secret not in packet
            for question in (b"\x0a_fastn-p2p\x04_udp\x05local\0", b"\x09_services\x07_dns-sd\x04_udp\x05local\0"):
                sock.sendto(struct.pack("!6H", 0, 0, 1, 0, 0, 0) + question + b"\0\x0c\0\1", (GROUP, 5353))
            sock.sendto(next(iter(encode_queries([lan_label(BOB).encode()]))), (GROUP, 5353))
            answers = [packet for _ in range(4) if labels_in(packet := sock.recv(9000)) and packet[2] & 0x80]
            assert len(answers) == 1, "nothing is said to those who do not know the label"

    def test_known_answer_is_not_repeated(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        bob = sources(lab.host("bob", office))
        with listening(lab.host("sniffer", office)) as sock:
            bob.publish(BOB, b"record")
            pointer = sock.recv(9000)
            while sock.recv(9000) != pointer:  # the announcement is repeated after a second
                pass
            known = bytearray(pointer)
            known[2] = 0  # a query, with the pointer among the answers that it knows
            sock.sendto(bytes(known), (GROUP, 5353))
            assert sock.recv(9000) == bytes(known)
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                sock.recv(9000)

    def test_answers_are_limited(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        bob = sources(lab.host("bob", office))
        bob.publish(BOB, b"record")
        query = next(iter(encode_queries([lan_label(BOB).encode()])))
        with listening(lab.host("hostile", office)) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            for _ in range(200):
                sock.sendto(query, (GROUP, 5353))
            sock.recv(9000)
            answers = 1
            sock.settimeout(0.6)
            with contextlib.suppress(TimeoutError):
                while True:
                    sock.recv(9000)
                    answers += 1
            assert answers <= 6

    def test_forged_records_for_a_search(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        alice, bob = sources(lab.host("alice", office)), sources(lab.host("bob", office))
        label = lan_label(BOB).encode()
        assert alice.search(BOB) == []
        with listening(lab.host("hostile", office)) as sock:
            for number in range(100):
                forged = seal_for_lan(CAROL, b"forged %d" % number)
                sock.sendto(encode_announcement(label, os.urandom(8).hex().encode(), forged), (GROUP, 5353))
                sock.sendto(os.urandom(500), (GROUP, 5353))
                sock.sendto(encode_announcement(label, b"cut", forged)[: 20 + number], (GROUP, 5353))
        bob.publish(BOB, b"record")
        eventually(lambda: alice.heard, "the true one is found")
        assert alice.heard == [(BOB, b"record")]

    def test_others_are_not_kept(self, lab: Lab, office: Segment, sources: Callable[[Host], SourceAt]) -> None:
        alice, bob = sources(lab.host("alice", office)), sources(lab.host("bob", office))
        with listening(lab.host("hostile", office)) as sock:
            for number in range(1000):
                label = lan_label(number.to_bytes(32, "big")).encode()
                sock.sendto(encode_announcement(label, b"%016d" % number, os.urandom(600)), (GROUP, 5353))
        bob.publish(BOB, b"record")
        alice.assert_finds(BOB, {b"record"})
        source = cast(Any, alice.source)
        assert len(source._searched) == 1
        assert not source._published
        assert not source._questions
