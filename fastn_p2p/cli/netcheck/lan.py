"""Check of the LAN: a multicast packet is sent on each interface, and must be heard there."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from fastn_p2p_actors.network.discovery.lan.interfaces import Link
from fastn_p2p_actors.network.discovery.lan.messages import encode_queries
from fastn_p2p_actors.network.discovery.lan.multicast import Multicast

from .check import OFF, OK, PROBLEM, UNKNOWN, Check

_WAIT: Final = 1.0
"""Seconds within which the packet must be heard. The kernel returns it in less than a millisecond."""
_LABEL_BYTES: Final = 16


async def check_lan(*, uses_lan: bool, mode: str) -> list[Check]:
    """Return one check for each interface that has multicast."""
    if not uses_lan:
        reason = "network mode local uses no LAN" if mode == "local" else "the settings turn it off"
        return [Check(name="LAN", state=OFF, text=reason)]
    heard: set[Link] = set()
    changed = asyncio.Event()
    packets = set(encode_queries({secrets.token_bytes(_LABEL_BYTES)}))

    def on_packet(packet: bytes, link: Link) -> None:
        if packet in packets:
            heard.add(link)
            changed.set()

    multicast = Multicast(on_packet, lambda: None)
    multicast.open()
    try:
        links = multicast.links
        if not links:
            text = multicast.problem or "no interface has multicast"
            state = PROBLEM if multicast.problem else UNKNOWN
            return [Check(name="LAN", state=state, text=text, advice="connect the machine to a LAN")]
        for packet in packets:
            multicast.send(packet)
        deadline = asyncio.get_running_loop().time() + _WAIT
        while heard < links and (left := deadline - asyncio.get_running_loop().time()) > 0:
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                break
    finally:
        multicast.close()
    return [_check(link, link in heard) for link in sorted(links)]


def _check(link: Link, is_received: bool) -> Check:
    place = f"{link.interface} {link.address}"
    if is_received:
        return Check(name="LAN", state=OK, text="multicast is sent and heard", target=place)
    advice = "allow UDP port 5353 (multicast DNS) in the firewall of this machine"
    return Check(name="LAN", state=PROBLEM, text="multicast is sent, and not heard", advice=advice, target=place)
