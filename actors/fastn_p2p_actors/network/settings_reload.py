"""Reload of the network settings from ``config.toml`` while the daemon runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastn_p2p_client.errors import StorageDamaged

from ..daemon_settings.catalogue import LOG_LEVEL, SETTINGS, InvalidSettings
from ..daemon_settings.config_file import read_config
from ..daemon_settings.sections import LogSection
from ..runtime.specs import NetworkSettings
from ..storage.atomic_files import error_text
from .live_settings import LiveSettings

log = logging.getLogger(__name__)

_LIVE: Final = tuple(setting for setting in SETTINGS if setting.is_live)
_OF_NETWORK: Final = tuple(setting for setting in _LIVE if setting.section == "network")


OpenFile: TypeAlias = Callable[[], Awaitable[int]]


class SettingsReload:
    """Reads the keys that change live. Values of the command line and the environment stay as they are.

    The process reads the file at its own start as well: after a restart, its spec still has the values with which the
    daemon was started.
    """

    def __init__(self, file: Path, start: NetworkSettings, open_file: OpenFile | None = None) -> None:
        """
        Args:
            file: ``config.toml``.
            start: settings with which the daemon was started.
            open_file: returns a descriptor of the file, if this process's sandbox keeps it closed. Raises OSError.
        """
        self._file = file
        self._open_file = open_file
        self._start = start
        self.live = LiveSettings(start.network)
        self.log_level = ""
        """Level of log lines that the file asks for; empty if an option or a variable sets it."""
        self.problem = ""
        """Reason why the file does not count; empty if it does."""

    async def at_start(self) -> None:
        """Read the file. If it is invalid, use the values with which the daemon was started, and warn."""
        try:
            await self.reload()
        except StorageDamaged as error:
            self.problem = f"config.toml is ignored until it is corrected: {error}"
            log.warning("%s", self.problem)

    async def reload(self) -> tuple[str, ...]:
        """Read the file and use its values. Return the keys that it cannot change.

        Raises:
            StorageDamaged: the file is invalid or cannot be read. The settings stay as they are.
        """
        try:
            descriptor = None if self._open_file is None else await self._open_file()
            found = await asyncio.to_thread(read_config, self._file, descriptor)
        except FileNotFoundError:
            found = {}
        except InvalidSettings as error:
            raise StorageDamaged(path=str(self._file), reason=str(error)) from error
        except OSError as error:
            raise StorageDamaged(path=str(self._file), reason=error_text(error)) from error
        self.problem = ""
        self.live.change(**{setting.name: self._value(setting.key, found) for setting in _OF_NETWORK})
        self.log_level = "" if LOG_LEVEL in self._start.fixed else found.get(LOG_LEVEL, LogSection().level)
        return tuple(setting.key for setting in _LIVE if setting.key in self._start.fixed)

    def _value(self, key: str, found: dict[str, Any]) -> Any:
        if key in self._start.fixed:
            return getattr(self._start.network, key.partition(".")[2])
        return found.get(key)
