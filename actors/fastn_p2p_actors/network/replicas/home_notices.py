"""Home notices: tell the local processes that serve a binding whether this daemon is its home."""

from __future__ import annotations

from typing import Final

from fastn_p2p_client.ipc.messages import HomeChanged, encode

from ...runtime.mailbox import Mailbox
from ..serving.registry import Registry

_NO_REPLY: Final = (1 << 63).to_bytes(8, "big")
"""Correlation id of a message that has no reply. Programs choose none with this bit."""


class HomeNotices:
    """Sends ``HomeChanged``.

    Args:
        mailbox: of the network process.
    """

    def __init__(self, mailbox: Mailbox, registry: Registry) -> None:
        self._mailbox = mailbox
        self._registry = registry

    def send(self, identity: bytes) -> None:
        """Send the homes of an identity's bindings to all processes that serve them."""
        online = self._registry.by_key(identity)
        if online is None:
            return
        homes = self._registry.homes
        for binding in homes.stateful(online.bindings.values()):
            daemon = homes.daemon_elsewhere(binding)
            header = encode(HomeChanged(online.name, binding.protocol, binding.instance, daemon))
            for server in online.bindings[binding.protocol, binding.instance].servers:
                self._mailbox.send(server.sender, _NO_REPLY, header, b"")
