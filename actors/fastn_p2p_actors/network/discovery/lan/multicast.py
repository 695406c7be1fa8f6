"""Multicast sockets of multicast DNS: one for each family, on every interface that has multicast."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Final

from ....runtime.rate_limiter import Rate, TokenBucket
from ..local_addresses import InterfaceWatch
from .interfaces import Link, find_links
from .messages import MAX_PACKET
from .packet_filter import apply_filter

log = logging.getLogger(__name__)

PORT: Final = 5353
_GROUP: Final = "224.0.0.251"
_GROUP6: Final = "ff02::fb"
_HOPS: Final = 255
_IP_PKTINFO: Final = 8
_IP_MULTICAST_ALL: Final = 49
_IPV6_MULTICAST_ALL: Final = 29
"""Options of Linux that the socket module does not name."""
_PKTINFO: Final = struct.Struct("@i4s4s")
"""``struct in_pktinfo``: interface, local address, destination."""

_BUDGET: Final = Rate(per_second=0.04, burst=0.2)
"""Seconds of processor time that packets may take. Past it they wait in the kernel, which drops what is too much."""
_WAKES: Final = Rate(per_second=20, burst=40)
"""Iterations of the event loop in which packets are read. Each costs as much as reading several packets. Past the
burst, as on a LAN with hundreds of daemons, packets wait in the kernel for the next one, for 50 ms at most."""
_BATCH: Final = 32
"""Packets that are read in one iteration of the event loop."""
_READ_DELAY: Final = 0.05
"""Seconds for which nothing is read when the budget is spent, or packets come often."""
_DEBOUNCE: Final = 0.1
"""Seconds after a change of the interfaces during which further changes are waited for."""
_RETRY: Final = 10.0
"""Seconds before sockets that could not be opened are tried again."""


# A host of the LAN can send any number of packets. Each costs 5 microseconds if it is of no interest, and more if it
# names an identity that is looked for. So the budget is in seconds of processor time, not in packets: it holds for
# whatever somebody thinks of. The cost: during a flood, peers on the LAN may not be found. Everything else goes on.


class Multicast:
    """Sends to all hosts of every LAN that this host is in, and receives from them.

    Args:
        on_packet: called with each packet and the link on which it came, within the budget.
        on_links: called when a link is new, after which it works.

    Attributes:
        links: links in use.
        first_links: one of each interface, IPv4 if it has that. Most hosts hear both, and each packet costs all hosts.
    """

    def __init__(self, on_packet: Callable[[bytes, Link], None], on_links: Callable[[], None]) -> None:
        self._on_packet = on_packet
        self._on_links = on_links
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        """By family."""
        self._by_number: dict[tuple[int, int], Link] = {}
        """Links by family and number of the interface."""
        self._problems: dict[Link, str] = {}
        """Reason for which the last packet did not leave on a link."""
        self._failure = ""
        self._budget = TokenBucket(_BUDGET, self._loop.time())
        self._wakes = TokenBucket(_WAKES, self._loop.time())
        self._resume: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._watch: InterfaceWatch | None = None
        self._labels: Collection[bytes] | None = None
        self.links: frozenset[Link] = frozenset()
        self.first_links: frozenset[Link] = frozenset()

    @property
    def problem(self) -> str:
        """Reason for which nothing can be sent; empty if something can, and without any interface."""
        if self._failure:
            return self._failure
        if self.links and self.links <= self._problems.keys():
            return "; ".join(sorted({f"{link.interface}: {text}" for link, text in self._problems.items()}))
        return ""

    def open(self) -> None:
        """Open the sockets, and follow the interfaces from now on. Failed steps are tried again."""
        self._watch = InterfaceWatch(self._update, _DEBOUNCE)
        self._update()

    def close(self) -> None:
        """Close everything."""
        for timer in (self._resume, self._retry):
            if timer is not None:
                timer.cancel()
        if self._watch is not None:
            self._watch.close()
        for family in list(self._sockets):
            self._close_socket(family)

    def set_labels(self, labels: Collection[bytes]) -> None:
        """Receive no packets of other daemons that name none of these labels, from now on."""
        self._labels = labels
        for sock in self._sockets.values():
            self._filter(sock)

    def _filter(self, sock: socket.socket) -> None:
        try:
            apply_filter(sock, self._labels)
        except OSError as error:
            log.info("packets on the LAN are not filtered by the kernel: %s", error)

    def send(self, packet: bytes, links: Iterable[Link] | None = None) -> None:
        """Send the packet on these links, by default on all of them. A packet that does not leave is lost."""
        for link in self.links if links is None else links:
            sock = self._sockets.get(link.family)
            if sock is None:
                continue
            try:
                if link.family == socket.AF_INET:
                    where = _PKTINFO.pack(link.number, bytes(4), bytes(4))
                    sock.sendmsg([packet], [(socket.IPPROTO_IP, _IP_PKTINFO, where)], 0, (_GROUP, PORT))
                else:
                    sock.sendto(packet, (_GROUP6, PORT, 0, link.number))
            except BlockingIOError:
                continue
            except OSError as error:
                text = os.strerror(error.errno or 0)
                if self._problems.get(link) != text:
                    log.info("cannot send multicast on %s: %s", link.interface, text)
                self._problems[link] = text
            else:
                self._problems.pop(link, None)

    # ── interfaces ───────────────────────────────────────────────────────────────────────────────

    def _update(self) -> None:
        """Join the groups on new links, and leave those of links that have gone."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        try:
            wanted = find_links()
            failures = {family: self._open_socket(family) for family in {link.family for link in wanted}}
        except OSError as error:
            wanted, failures = frozenset(), {0: os.strerror(error.errno or 0)}
        for link in self.links - wanted:
            self._leave_group(link)
        joined = {link for link in wanted if link in self.links or self._join(link)}
        is_new = bool(joined - self.links)
        self.links = frozenset(joined)
        self._by_number = {(link.family, link.number): link for link in joined}
        with_ipv4 = {link.number for link in joined if link.family == socket.AF_INET}
        self.first_links = frozenset(
            link for link in joined if link.family == socket.AF_INET or link.number not in with_ipv4
        )
        self._problems = {link: text for link, text in self._problems.items() if link in joined}
        for family in [family for family in self._sockets if not any(link.family == family for link in joined)]:
            self._close_socket(family)
        texts = list(filter(None, failures.values()))
        failure = texts[0] if texts and not joined else ""
        if failure != self._failure and failure:
            log.warning("peers on the LAN are not found: %s", failure)
        self._failure = failure
        if texts:
            self._retry = self._loop.call_later(_RETRY, self._update)
        if is_new:
            self._on_links()

    def _open_socket(self, family: int) -> str:
        """Open the socket of a family unless it is open. Return the reason if it fails."""
        if family in self._sockets:
            return ""
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # REUSEADDR and not REUSEPORT, so that other responders of this host, under any user, may have the port too.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
                sock.bind((_GROUP, PORT))  # the group's packets and no others, so none from outside of the LAN
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
                with suppress(OSError):  # before Linux 4.20
                    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
                sock.bind(("::", PORT))
        except OSError as error:
            sock.close()
            return f"UDP port {PORT} cannot be opened: {os.strerror(error.errno or 0)}"
        self._filter(sock)
        self._sockets[family] = sock
        if self._resume is None:
            self._loop.add_reader(sock, self._on_readable, sock)
        return ""

    def _close_socket(self, family: int) -> None:
        sock = self._sockets.pop(family)
        self._loop.remove_reader(sock)
        sock.close()

    def _join(self, link: Link) -> bool:
        sock = self._sockets.get(link.family)
        if sock is None:
            return False
        known = any(each.number == link.number and each.family == link.family for each in self.links)
        with suppress(OSError):  # the kernel has left already, or is a member still
            self._membership(sock, link, join=False)
        try:
            self._membership(sock, link, join=True)
        except OSError as error:
            log.info("no multicast on %s: %s", link.interface, error)
            return known
        return True

    def _leave_group(self, link: Link) -> None:
        sock = self._sockets.get(link.family)
        if sock is not None:
            with suppress(OSError):  # the interface has gone
                self._membership(sock, link, join=False)

    def _membership(self, sock: socket.socket, link: Link, *, join: bool) -> None:
        if link.family == socket.AF_INET:
            option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
            group = struct.pack("@4s4si", socket.inet_aton(_GROUP), bytes(4), link.number)  # struct ip_mreqn
            sock.setsockopt(socket.IPPROTO_IP, option, group)
        else:
            option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
            group = socket.inet_pton(socket.AF_INET6, _GROUP6) + struct.pack("@I", link.number)
            sock.setsockopt(socket.IPPROTO_IPV6, option, group)

    # ── packets ──────────────────────────────────────────────────────────────────────────────────

    def _on_readable(self, sock: socket.socket) -> None:
        began = time.thread_time()
        try:
            for _ in range(_BATCH):
                packet, number = self._receive(sock)
                link = self._by_number.get((sock.family, number))
                if link is not None:
                    self._on_packet(packet, link)
        except BlockingIOError:
            pass
        except OSError as error:
            log.debug("cannot receive multicast: %s", error)
        except Exception:
            log.exception("a packet from the LAN")
        now = self._loop.time()
        self._budget.spend(now, time.thread_time() - began)
        if self._resume is None and (not self._wakes.try_spend(now) or self._budget.left(now) <= 0):
            for each in self._sockets.values():
                self._loop.remove_reader(each)
            self._resume = self._loop.call_later(_READ_DELAY, self._resume_reading)

    def _resume_reading(self) -> None:
        if self._budget.left(self._loop.time()) <= 0:
            self._resume = self._loop.call_later(_READ_DELAY, self._resume_reading)
            return
        self._resume = None
        for each in self._sockets.values():
            self._loop.add_reader(each, self._on_readable, each)

    @staticmethod
    def _receive(sock: socket.socket) -> tuple[bytes, int]:
        """Return the next packet, and the number of the interface on which it came; 0 if it is not of a LAN's host."""
        if sock.family == socket.AF_INET:
            packet, extra, _, _ = sock.recvmsg(MAX_PACKET, socket.CMSG_SPACE(_PKTINFO.size))
            for level, kind, data in extra:
                if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) == _PKTINFO.size:
                    return packet, int(_PKTINFO.unpack(data)[0])
            return packet, 0
        packet, source = sock.recvfrom(MAX_PACKET)
        return packet, int(source[3])  # the scope: link-local senders have one, those behind a router do not
