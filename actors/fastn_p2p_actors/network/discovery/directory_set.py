"""Directories of the daemon's settings, as sources of the record finder. They follow the settings while it runs."""

from __future__ import annotations

from collections.abc import Callable

from ..live_settings import LiveSettings
from .directory_client import DirectoryClient
from .directory_source import DirectorySource, OnNewer
from .record_finder import RecordFinder


class DirectorySet:
    """Adds a source for each directory of the settings, and removes it when the settings no longer name it.

    Args:
        settings: name the directories.
        finder: has the sources.
        wall: returns Unix time.
        on_newer: as of ``DirectorySource``.
        on_added: called after directories were added while the daemon runs.
    """

    def __init__(
        self,
        settings: LiveSettings,
        finder: RecordFinder,
        wall: Callable[[], float],
        on_newer: OnNewer,
        on_added: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._finder = finder
        self._wall = wall
        self._on_newer = on_newer
        self._on_added = on_added
        self._sources: dict[str, DirectorySource] = {}
        settings.on_change(self._follow)
        self._follow()

    def _follow(self) -> None:
        wanted = self._settings.directories
        for url in self._sources.keys() - set(wanted):
            source = self._sources.pop(url)
            self._finder.sources.remove(source)
            source.close()
        added = [url for url in wanted if url not in self._sources]
        for url in added:
            source = self._sources[url] = DirectorySource(DirectoryClient(url), self._wall, self._on_newer)
            self._finder.sources.append(source)
        if added:
            self._on_added()
