"""Addresses from which a host can send, and notice of their changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fastn_p2p_actors.network.discovery.local_addresses import InterfaceWatch, find_addresses
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.support.daemons import DEADLINE, eventually


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("host", lab.net)


def test_addresses_that_others_can_answer(lab: Lab, host: Host) -> None:
    """Neither those of loopback, nor link-local ones, nor those of an interface without a carrier."""
    both = frozenset({host.address, host.address6})
    assert host.call(find_addresses) == both
    second = host.attach(lab.router("cone").lan)
    assert host.call(find_addresses) == both | {str(second.address), str(second.address6)}
    host.detach(second)
    eventually(lambda: host.call(find_addresses) == both, "its addresses have gone")
    host.link(False)
    eventually(lambda: not host.call(find_addresses), "no address has a carrier")
    host.link(True)
    assert host.call(find_addresses) == both


def test_a_host_with_ipv6_only(lab: Lab) -> None:
    host = lab.host("six")
    host.attach(lab.net, ipv4=False)
    assert host.call(find_addresses) == {host.address6}


def test_several_addresses_of_one_interface(host: Host) -> None:
    host.namespace.ip.addr("add", index=host.interface.index, address="198.51.100.200", prefixlen=24)
    assert host.call(find_addresses) == {host.address, host.address6, "198.51.100.200"}


@pytest.mark.parametrize("change", ["address", "IPv6 address", "link", "interface"])
def test_notice_of_a_change(host: Host, change: str) -> None:
    interface = host.interface
    changes: dict[str, Callable[[], object]] = {
        "address": host.set_address,
        "IPv6 address": lambda: interface.set_address(interface.address, interface.segment.network6[200]),
        "link": lambda: host.link(False),
        "interface": host.detach,
    }

    async def wait_for_change() -> None:
        before, noticed = find_addresses(), asyncio.Event()
        watch = InterfaceWatch(lambda: noticed.set() if find_addresses() != before else None, 0.02)
        try:
            await asyncio.to_thread(changes[change])
            async with asyncio.timeout(DEADLINE):
                await noticed.wait()
        finally:
            watch.close()

    host.call(lambda: asyncio.run(wait_for_change()))
