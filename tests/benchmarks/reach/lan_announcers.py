"""``python -m tests.benchmarks.reach.lan_announcers COUNT INTERFACE``: multicast DNS of COUNT daemons, in one process.

Each announces one identity, twice, as after a power cut, and then searches for another one every ten seconds. The one
that is searched for answers. The packets are those of real daemons, on IPv4 and IPv6 as theirs; nothing is dialled.
The process runs until it is killed. It prints a line once everything is announced.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Final

from fastn_p2p_actors.credentials.lan_record import lan_label, seal_for_lan
from fastn_p2p_actors.network.discovery.lan.messages import encode_announcement, encode_queries

__all__ = ["SEARCH_EVERY"]

SEARCH_EVERY: Final = 10.0
"""Seconds between two searches of one daemon."""
_RECORD: Final = 385
"""Bytes of a signed record with two IPv4 and two IPv6 addresses."""
_GROUPS: Final = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}
_PORT: Final = 5353


class _Link:
    """Socket of one family on the interface."""

    def __init__(self, family: socket.AddressFamily, interface: str) -> None:
        number = socket.if_nametoindex(interface)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", _PORT))
        self._address: tuple[str, int] | tuple[str, int, int, int] = (_GROUPS[family], _PORT)
        if family == socket.AF_INET:
            which = bytes(8) + number.to_bytes(4, sys.byteorder)  # struct ip_mreqn
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, which)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            self._address = (_GROUPS[family], _PORT, 0, number)

    def send(self, packet: bytes) -> None:
        self._socket.sendto(packet, self._address)


def _announcement(key: bytes) -> bytes:
    return encode_announcement(
        lan_label(key).encode(), os.urandom(8).hex().encode(), seal_for_lan(key, os.urandom(_RECORD))
    )


def main(count: int, interface: str) -> None:
    links = [_Link(family, interface) for family in _GROUPS]
    keys = [os.urandom(32) for _ in range(count)]
    announcements = [_announcement(key) for key in keys]
    queries = [next(iter(encode_queries([lan_label(key).encode()]))) for key in keys]
    for _ in range(2):
        for packet in announcements:
            for link in links:
                link.send(packet)
            time.sleep(1 / count)
    print("announced", flush=True)
    began, number = time.monotonic(), 0
    while True:
        number += 1
        time.sleep(max(0.0, began + number * SEARCH_EVERY / count - time.monotonic()))
        wanted = number * 7 % count
        links[0].send(queries[wanted])
        links[0].send(announcements[wanted])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
