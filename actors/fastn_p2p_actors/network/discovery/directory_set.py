"""Directories of the daemon's settings, as sources of the record finder. They follow the settings while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fastn_p2p_client.errors import P2PError

from ..live_settings import LiveSettings
from ..serving.registry import OnlineIdentity, Publication
from .directory_client import DirectoryClient
from .directory_source import DirectorySource, OnNewer, OnPresent
from .record_finder import RecordFinder

log = logging.getLogger(__name__)


class DirectorySet:
    """Adds a source for each directory of the settings, and removes it when the settings no longer name it.

    Args:
        settings: name the directories.
        finder: has the sources.
        wall: returns Unix time.
        on_newer, on_present: as of ``DirectorySource``.
        on_added: called after directories were added while the daemon runs.
    """

    def __init__(
        self,
        settings: LiveSettings,
        finder: RecordFinder,
        wall: Callable[[], float],
        on_newer: OnNewer,
        on_present: OnPresent,
        on_added: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._finder = finder
        self._wall = wall
        self._on_newer = on_newer
        self._on_present = on_present
        self._on_added = on_added
        self._sources: dict[str, DirectorySource] = {}
        """By URL."""
        settings.on_change(self._on_settings)
        self._reconcile()

    def __len__(self) -> int:
        """Number of directories."""
        return len(self._sources)

    def __contains__(self, source: object) -> bool:
        return source in self._sources.values()

    def published_urls(self, identity: OnlineIdentity) -> list[str]:
        """Return the URLs of the directories that have a record of the identity from this daemon."""
        found = identity.publications
        return [url for url in self._sources if url in found and found[url].published]

    def note_problem(self, identity: OnlineIdentity, problem: str) -> None:
        """Note the reason for which the newest record of an identity is at no directory."""
        for url in self._sources:
            before = identity.publications.get(url)
            identity.publications[url] = Publication(before.published if before is not None else 0.0, problem)

    async def look_up(self, key: bytes, seconds: float) -> None:
        """Ask every directory for the records of an identity. The address book keeps them.

        Args:
            key: the identity, 32 bytes.
            seconds: at most; slower directories are not waited for.
        """
        searches = [asyncio.ensure_future(self._search(source, key)) for source in self._sources.values()]
        if searches:
            _, late = await asyncio.wait(searches, timeout=seconds)
            for search in late:
                search.cancel()

    async def _search(self, source: DirectorySource, key: bytes) -> None:
        try:
            await source.search(key, lambda blob: self._finder.on_announcement(key, blob, source.name))
        except P2PError as error:
            log.debug("%s was not read before publishing: %s", source.name, error)

    def _on_settings(self) -> None:
        if self._reconcile():
            self._on_added()

    def _reconcile(self) -> bool:
        """Follow the settings. Return whether directories were added."""
        wanted = self._settings.directories
        for url in self._sources.keys() - set(wanted):
            source = self._sources.pop(url)
            self._finder.sources.remove(source)
            source.close()
        added = [url for url in wanted if url not in self._sources]
        for url in added:
            source = DirectorySource(DirectoryClient(url), self._wall, self._on_newer, self._on_present)
            self._sources[url] = source
            self._finder.sources.append(source)
        return bool(added)
