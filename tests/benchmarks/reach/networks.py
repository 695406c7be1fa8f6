"""Networks in which reach is measured, with the relay and the callees in them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

from fastn_p2p_actors.credentials.pkarr import encode_key
from fastn_p2p_client import PublicKey
from fastn_p2p_client.ipc.messages import AddPeer, AddProtocol
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.support.daemons import CLI, eventually
from tests.support.protocols import install_protocols
from tests.support.requests import ticket_of

from ..results import BenchmarkError

__all__ = ["DELAY_MS", "LOSS", "NO_INTERNET", "NO_RELAY", "Callee", "Networks", "introduce", "start_all"]

LOSS: Final = 0.02
"""Fraction of packets that the impaired path loses in each direction."""
DELAY_MS: Final = 20
"""Delay of the impaired path in each direction."""
NO_INTERNET: Final = ("--network", "lan")
NO_RELAY: Final = (*NO_INTERNET, "--no-lan")
"""No LAN either. A relay would carry what a bad path loses."""
_RELAY: Final = "198.51.100.1"
_BOB: Final = "198.51.100.100"
"""Above the addresses of the routers."""
_UNLIMITED: Final = ("--client-rate", "0", "--address-rate", "0")
"""The relay is measured, not the limits of its operator."""
_READY_TIMEOUT: Final = 30.0


class Callee:
    """A daemon that is called: its identity bob has Echo and the protocol whose sessions are measured."""

    def __init__(self, daemon: HostDaemon) -> None:
        self.daemon = daemon
        self.id52 = daemon.identity("bob")
        with daemon.client() as client:
            client.control(AddProtocol("bob", "Bytes", "default", ("everyone",)))
        self.ticket = ticket_of(daemon, "bob")


class Networks:
    """Hosts of a laboratory::

        net ── relay .1 (relay and directory), bob .100
         ├── a home ──────────────── alice: reaches bob directly
         ├── a home that blocks UDP ─ carol: reaches bob over the relay
         └── a home at a bad line ─── erin: LOSS and ONE_WAY_MS in each direction
        office (no router) ── dave, frank: find each other on the LAN

    Attributes:
        bob: callee at the public network.
        frank: callee at the office.
        internet: options of daemons that use the relay and the directory, and no LAN.
    """

    def __init__(self, lab: Lab, packages: Path) -> None:
        self.lab = lab
        home, blocked, bad = routers = [lab.router(wait=False) for _ in range(3)]
        self.alice, self.carol, self.erin = (
            lab.host(name, router.lan) for name, router in zip(("alice", "carol", "erin"), routers, strict=True)
        )
        office = lab.lan()
        self.dave = lab.host("dave", office)
        self.internet = _internet_options(lab.host("relay", lab.net, address=_RELAY))
        for router in (home, blocked, bad):
            router.wait_ready()
        blocked.block_udp()
        bad.impair(delay_ms=DELAY_MS, loss=LOSS)
        installed = install_protocols(packages, Bytes="tests.benchmarks.handler:Bytes")
        self.bob_host = lab.host("bob", lab.net, address=_BOB)
        bob = self.bob_host.daemon(**installed)
        frank = lab.host("frank", office).daemon(**installed)
        start_all({bob: self.internet, frank: NO_INTERNET})
        self.bob, self.frank = Callee(bob), Callee(frank)
        self._wait_published(self.bob)

    def _wait_published(self, callee: Callee) -> None:
        url = f"{self.internet[-1]}/{encode_key(bytes(PublicKey(callee.id52)))}"

        def is_published() -> bool:
            try:
                with urlopen(url) as reply:
                    return bool(reply.status == HTTPStatus.OK)
            except HTTPError:
                return False

        eventually(lambda: self.bob_host.call(is_published), "bob is in the directory", _READY_TIMEOUT, 0.05)

    @classmethod
    async def start(cls, stack: AsyncExitStack, packages: Path) -> Networks:
        """Made in a thread; ended with the stack."""
        lab = await asyncio.to_thread(Lab)
        stack.push_async_callback(asyncio.to_thread, lab.close)
        try:
            return await asyncio.to_thread(cls, lab, packages)
        except AssertionError as error:
            raise BenchmarkError(f"no daemons in the laboratory: {_last_line(error)}") from error


def introduce(daemon: HostDaemon, callee: Callee) -> None:
    """Give the daemon an identity alice, who has the ticket of bob."""
    daemon.identity("alice", echo=False)
    with daemon.client() as client:
        client.control(AddPeer(callee.ticket, "bob"))


def start_all(daemons: Mapping[HostDaemon, Sequence[str]]) -> None:
    """Start daemons with these options, and wait until those with a relay are connected to it."""
    for daemon, options in daemons.items():
        daemon.launch(*options)
    for daemon, options in daemons.items():
        if not daemon.wait_ready(_READY_TIMEOUT):
            raise BenchmarkError(f"a daemon is not ready: {_last_line(daemon.report())}")
        if "--relay" in options:
            eventually(lambda daemon=daemon: daemon.status().home_relay, "a daemon has a relay", _READY_TIMEOUT, 0.05)  # type: ignore[misc]


def _internet_options(host: Host) -> tuple[str, ...]:
    """Run the relay with the directory in the host; the options of daemons that use both."""
    command = [*CLI, "relay", "--listen", f"{host.address}:3340", "--qad-port", "0", *_UNLIMITED]
    process = host.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    urls: dict[str, str] = {}
    assert process.stdout is not None
    while "directory" not in urls:
        service, _, url = process.stdout.readline().strip().partition(" ")
        if not service:
            raise BenchmarkError("the relay has ended")
        urls[service] = url
    return ("--network", "internet", "--no-lan", "--relay", urls["relay"], "--directory", urls["directory"])


def _last_line(text: Any) -> str:
    return str(text).strip().rpartition("\n")[2]
