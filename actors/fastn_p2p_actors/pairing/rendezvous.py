"""Rendezvous points of a pairing: the host publishes its meeting record there, and the joiner searches for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey

from ..credentials.lan_record import lan_label
from ..credentials.meeting_key import OPEN, MeetingKey, MeetingRecord
from ..network.discovery.directory_client import DirectoryClient, NewerPacket
from ..network.discovery.host_directory import HostDirectory
from ..network.discovery.lan.lan_source import LAN, LanSource
from ..network.serving.registry import OnlineIdentity
from ..runtime.mailbox import Sender
from ..storage.atomic_files import write_atomically
from .pairing_errors import NoRendezvous

LIFETIME: Final = 600.0
"""Seconds for which a code is good."""
_MAX_FILE: Final = 2048
"""Bytes of a meeting record in a file at most."""

OnSealed = Callable[[bytes], None]
"""Called with each sealed record that a point has. Any daemon may have put it there."""


@dataclass(frozen=True, kw_only=True)
class NetworkUse:
    """Network settings of the running daemon that a pairing uses, too."""

    mode: str
    relays: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    lan: bool = False


class RendezvousPoint(Protocol):
    """Rendezvous point. Each method raises P2PError or OSError with the reason if the point does not work."""

    name: str

    async def publish(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        """Publish a record, in place of an earlier one under the same key."""
        ...

    async def search(self, key: MeetingKey, found: OnSealed) -> None:
        """Pass on the records under a key."""
        ...

    async def remove(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        """Remove the record; where that cannot be done, replace it by this one, which names no address."""
        ...


class _ThisMachine:
    """Files in the host directory, which only this user can write."""

    name = "this machine"

    def __init__(self, hosts: HostDirectory) -> None:
        self._hosts = hosts
        for path in hosts.meeting_files():
            with contextlib.suppress(OSError):  # another process removes it, too
                if time.time() - path.stat().st_mtime > LIFETIME:
                    path.unlink()

    async def publish(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        if self._hosts.problem:
            raise OSError(self._hosts.problem)
        write_atomically(self._hosts.meeting_file(lan_label(key.public)), sealed)

    async def search(self, key: MeetingKey, found: OnSealed) -> None:
        for path in self._hosts.meeting_files(lan_label(key.public)):
            with contextlib.suppress(OSError):  # it has just gone
                found(_read(path))

    async def remove(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        if not self._hosts.problem:
            self._hosts.meeting_file(lan_label(key.public)).unlink(missing_ok=True)


class _Lan:
    """Announcements by multicast DNS, like those of identities."""

    name = LAN

    def __init__(self) -> None:
        self._source = LanSource(lambda _key, _record: None, time.time)
        self._source.open()
        self._published: OnlineIdentity | None = None

    async def publish(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        published = self._published or OnlineIdentity(
            "a pairing", PublicKey(key.public), Sender(os.getuid(), os.getpid())
        )
        self._published = published
        published.record = sealed
        self._source.publish(published)
        problem = published.publications[LAN].problem
        if problem:
            raise OSError(problem)

    async def search(self, key: MeetingKey, found: OnSealed) -> None:
        await self._source.search(key.public, found)

    async def remove(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        if self._published is not None:
            self._source.unpublish(self._published)

    def close(self) -> None:
        self._source.close()


class _Directory:
    """Directory of signed packets as a rendezvous point."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._client = DirectoryClient(url)

    async def publish(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        try:
            await self._client.put(key.public, key.sign_packet(sealed, sequence))
        except NewerPacket:
            await self._client.put(key.public, key.sign_packet(sealed, await self._sequence_above(key)))

    async def _sequence_above(self, key: MeetingKey) -> int:
        present = await self._client.get(key.public)
        return present.sequence + 1 if present is not None else 0

    async def search(self, key: MeetingKey, found: OnSealed) -> None:
        packet = await self._client.get(key.public)
        for sealed in key.sealed_in(packet) if packet is not None else ():
            found(sealed)

    async def remove(self, key: MeetingKey, sealed: bytes, sequence: int) -> None:
        await self.publish(key, sealed, sequence)

    async def close(self) -> None:
        await self._client.close()


class RendezvousSet:
    """Rendezvous points that the daemon's settings allow.

    Attributes:
        problems: reason for which a point did not work the last time, by its name.

    Raises:
        NoRendezvous: no daemon on another machine can find the host, or be found.
    """

    def __init__(self, use: NetworkUse, endpoint: bytes) -> None:
        if use.mode != "local" and not use.lan and not use.directories:
            raise NoRendezvous(
                reason="the LAN (network.lan) and directories (network.directories) are both off. Turn one on with "
                "`fastn-p2p config set`, or exchange tickets: fastn-p2p ticket"
            )
        hosts = HostDirectory.find(endpoint)
        hosts.open()
        self._lan = _Lan() if use.lan else None
        self._directories = [_Directory(url) for url in use.directories]
        self._points: list[RendezvousPoint] = [_ThisMachine(hosts), *self._directories]
        if self._lan is not None:
            self._points.append(self._lan)
        self.problems: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Names of all points."""
        return [point.name for point in self._points]

    async def publish(self, key: MeetingKey, record: MeetingRecord) -> None:
        """Publish a record everywhere.

        Raises:
            NoRendezvous: no point accepts it.
        """
        sealed, sequence = key.seal(record), time.time_ns() // 1000
        await self._with_each(lambda point: point.publish(key, sealed, sequence))
        if len(self.problems) == len(self._points):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.problems.items())
            raise NoRendezvous(reason=f"the words cannot be published. {reasons}. See: fastn-p2p netcheck")

    async def remove(self, key: MeetingKey, record: MeetingRecord) -> None:
        """Remove the record everywhere. Directories cannot: they get ``record`` in its place."""
        sealed, sequence = key.seal(record), time.time_ns() // 1000
        await self._with_each(lambda point: point.remove(key, sealed, sequence))

    async def search(self, key: MeetingKey, found: Callable[[MeetingRecord], object]) -> None:
        """Search all points for the records under a key, and pass on those that are encrypted under it."""

        def on_sealed(sealed: bytes) -> None:
            with contextlib.suppress(P2PError):  # not of this code
                found(key.open(sealed))

        await self._with_each(lambda point: point.search(key, on_sealed))

    async def others(self, key: MeetingKey, endpoint: bytes) -> bool:
        """Return whether another endpoint publishes under the key."""
        strangers: list[MeetingRecord] = []
        await self.search(key, lambda each: strangers.append(each) if each.endpoint != endpoint else None)
        return any(each.state == OPEN for each in strangers)

    async def close(self) -> None:
        """Close the points. Records stay unless they were removed."""
        if self._lan is not None:
            self._lan.close()
        for directory in self._directories:
            await directory.close()

    async def _with_each(self, work: Callable[[RendezvousPoint], Awaitable[None]]) -> None:
        """Do something with all points at once, and note which ones do not work."""

        async def with_one(point: RendezvousPoint) -> None:
            try:
                await work(point)
            except (P2PError, OSError) as error:
                self.problems[point.name] = str(error)
            else:
                self.problems.pop(point.name, None)

        await asyncio.gather(*map(with_one, self._points))


def _read(path: os.PathLike[str]) -> bytes:
    """Read a regular file. Raises OSError for anything else. Never waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return os.read(descriptor, _MAX_FILE)
    finally:
        os.close(descriptor)
