"""Things that wait for the owner: reports of bindings, and strangers who ask for access."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from fastn_p2p_client.ipc.messages import WaitingItem, encode

from ..runtime.mailbox import Mailbox, Sender
from .admin_messages import WAITING, WaitingList
from .contacts.pending_peers import PendingPeers
from .serving.registry import Registry

MAX_ITEMS: Final = 64
"""Pairs of an identity and a protocol of which the gateway is told."""
MAX_COUNT: Final = 1_000_000
_DELAY: Final = 0.2
"""Seconds after a change: a thousand mails cause one message."""


class WaitingItems:
    """Things that wait now, and the gateways that are told.

    Args:
        mailbox: of the network process.
    """

    def __init__(self, mailbox: Mailbox, registry: Registry, pending: PendingPeers) -> None:
        self._mailbox = mailbox
        self._registry = registry
        self._pending = pending
        self._gateways: dict[Sender, bytes] = {}
        """Each with the message that it got last."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, gateway: Sender) -> None:
        """Tell a gateway from now on, and at once."""
        self._gateways[gateway] = b""
        self._send()

    def remove(self, sender: Sender) -> None:
        """Tell a gateway no more."""
        self._gateways.pop(sender, None)

    def changed(self) -> None:
        """Something may wait, or wait no more: tell the gateways soon."""
        if self._timer is None and self._gateways:
            self._timer = asyncio.get_running_loop().call_later(_DELAY, self._send)

    def items(self) -> tuple[WaitingItem, ...]:
        """Return what waits: strangers first, then by identity and protocol."""
        counts: Counter[tuple[str, str]] = Counter()
        for identity in self._registry:
            for binding in identity.bindings.values():
                if binding.waiting:
                    counts[identity.name, binding.protocol] += binding.waiting
        if len(self._pending):
            counts["", ""] = len(self._pending)
        return tuple(
            WaitingItem(identity=identity, protocol=protocol, count=min(count, MAX_COUNT))
            for (identity, protocol), count in sorted(counts.items())[:MAX_ITEMS]
        )

    def close(self) -> None:
        """Tell nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._gateways.clear()

    def _send(self) -> None:
        self._timer = None
        message = encode(WaitingList(self.items()))
        for gateway, last in self._gateways.items():
            if message != last and self._mailbox.send(gateway, WAITING, message):
                self._gateways[gateway] = message
