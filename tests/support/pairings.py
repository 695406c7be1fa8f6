"""Pairings of two daemons: both sides run in the process of the test."""

from __future__ import annotations

import asyncio
from typing import Any

from fastn_p2p_actors.pairing.code import new_code
from fastn_p2p_actors.pairing.host import PairingHost
from fastn_p2p_actors.pairing.joiner import PairingJoiner
from fastn_p2p_actors.pairing.rendezvous import NetworkUse
from fastn_p2p_actors.pairing.result import PairedPeer
from fastn_p2p_client.ipc.messages import ListPeers
from tests.support.daemons import Daemon
from tests.support.two_daemons import TwoDaemons

__all__ = ["LOCAL", "LONG", "ShownCode", "join", "pair_both", "peers"]

LOCAL = NetworkUse(mode="local")
LONG = 60.0
"""Seconds: how long a code is valid in tests that do not wait for its end."""


def peers(daemon: Daemon) -> dict[str, str]:
    """Return the ID52 of each peer in the address book, by its name."""
    with daemon.client() as client:
        return {peer.name: peer.id52 for peer in client.control(ListPeers()).peers}


class ShownCode:
    """Host in a task of its own. ``wait`` returns when the words can be typed."""

    def __init__(
        self,
        daemon: Daemon,
        code: str,
        *,
        use: NetworkUse = LOCAL,
        identity: str = "alice",
        name: str = "",
        seconds: float = LONG,
        rival_wait: float = 0.0,
    ) -> None:
        self.problems: dict[str, str] = {}
        self.sources: list[str] = []
        self._event = asyncio.Event()
        self.proved = asyncio.Event()
        """Set when a joiner has proved the words."""
        host = PairingHost(daemon.home, use, code, identity=identity, name=name, seconds=seconds, rival_wait=rival_wait)
        pair = host._pair

        async def on_proof(*arguments: Any) -> PairedPeer:
            self.proved.set()
            return await pair(*arguments)

        host._pair = on_proof  # type: ignore[method-assign, assignment]
        self.task = asyncio.create_task(host.run(self._on_shown))

    def _on_shown(self, sources: list[str], problems: dict[str, str]) -> None:
        self.sources, self.problems = sources, dict(problems)
        self._event.set()

    async def wait(self) -> ShownCode:
        shown = asyncio.create_task(self._event.wait())
        await asyncio.wait([shown, self.task], return_when=asyncio.FIRST_COMPLETED)
        shown.cancel()
        return self


async def join(
    daemon: Daemon, code: str, *, use: NetworkUse = LOCAL, identity: str = "bob", name: str = "", seconds: float = LONG
) -> PairedPeer:
    """Type ``code`` on ``daemon``."""
    return await PairingJoiner(daemon.home, use, code, identity=identity, name=name, seconds=seconds).run()


async def pair_both(daemons: TwoDaemons) -> tuple[PairedPeer | BaseException, PairedPeer | BaseException]:
    """Pair alice with bob. Return the results of host and joiner."""
    code = new_code()
    shown = await ShownCode(daemons.one, code).wait()
    return await asyncio.gather(shown.task, join(daemons.two, code), return_exceptions=True)
