"""Network settings of the running daemon, and who is called when they change."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ..daemon_settings.sections import NetworkMode, NetworkSection


class LiveSettings:
    """Network settings that the parts of the network process read. Relays and directories can change while it runs."""

    def __init__(self, section: NetworkSection) -> None:
        self._section = section
        self._callbacks: list[Callable[[], object]] = []

    @property
    def mode(self) -> str:
        """Network mode, from ``NetworkMode.ALL``."""
        return self._section.mode

    @property
    def relays(self) -> tuple[str, ...]:
        """URLs of the relays in use; none in the modes ``local`` and ``lan``."""
        return self._section.used_relays

    @property
    def directories(self) -> tuple[str, ...]:
        """URLs of the directories in use, to which ``/<z-base-32 key>`` is appended; none in ``local`` and ``lan``."""
        return self._section.used_directories

    @property
    def lan(self) -> bool:
        """True if peers are found on the LAN; never in mode ``local``."""
        return self._section.uses_lan

    def unused_sources(self) -> dict[str, str]:
        """Return the kinds of sources that are not asked for records of peers, and why each is not."""
        unused = {}
        if not self.lan:
            unused["LAN"] = f"off in network mode {self.mode}" if self._section.lan else "off: network.lan is false"
        if not self.directories:
            is_off = self.mode != NetworkMode.INTERNET
            unused["directories"] = f"off in network mode {self.mode}" if is_off else "network.directories is empty"
        return unused

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after each change, on the event loop."""
        self._callbacks.append(callback)

    def change(self, *, relays: tuple[str, ...] | None, directories: tuple[str, ...] | None) -> bool:
        """Use other relays and directories from now on. Return whether anything has changed.

        Args:
            relays: URLs; None for the default of the mode.
            directories: URLs; None for the default of the mode.
        """
        changed = replace(self._section, relays=relays, directories=directories)
        if changed == self._section:
            return False
        self._section = changed
        for callback in self._callbacks:
            callback()
        return True
