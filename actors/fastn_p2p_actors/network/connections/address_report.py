"""Address report of one connection: tells the peer daemon the address that this daemon sees of it.

Behind a NAT a daemon cannot know the address that others reach it at. Its peers can: it is where its packets come from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from iroh.iroh_ffi import IrohError, PathChangeCallback

from ..wire import messages as wire

if TYPE_CHECKING:
    from iroh.iroh_ffi import Connection, PathSnapshot, WatchHandle

log = logging.getLogger(__name__)


class AddressReport(PathChangeCallback):
    """Sends ``ObservedAddress`` once the connection has a direct path, and again when another address is seen.

    Args:
        send: sends a message on the channel.
    """

    def __init__(self, send: Callable[[wire.WireMessage], None]) -> None:
        self._send: Callable[[wire.WireMessage], None] | None = send
        self._reported = ""
        self._watch: WatchHandle | None = None

    def start(self, raw: Connection) -> None:
        """Report from now on. The peer daemon has said that it understands reports."""
        try:
            self._report(raw.paths())
            self._watch = raw.watch_paths(self)
        except IrohError as error:
            log.debug("cannot watch the paths of a connection: %s", error.message())

    def stop(self) -> None:
        """Stop: the connection has ended. iroh frees it only when nobody watches it."""
        self._watch = self._send = None

    async def on_change(self, paths: list[PathSnapshot]) -> None:
        self._report(paths)

    def _report(self, paths: list[PathSnapshot]) -> None:
        direct = sorted((each for each in paths if each.is_ip), key=lambda each: not each.is_selected)
        if self._send is not None and direct and direct[0].remote_addr != self._reported:
            self._reported = direct[0].remote_addr
            self._send(wire.ObservedAddress(self._reported))
