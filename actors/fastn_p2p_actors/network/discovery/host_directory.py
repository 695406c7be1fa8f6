"""The host directory: where the daemons of one user on one machine leave their identities' records for each other."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import P2PError, StorageFailed
from fastn_p2p_client.home import runtime_directories
from fastn_p2p_client.keys import PublicKey

from ...credentials import (
    MAX_RECORD,
    PeerRecord,
    read_record,
)
from ...storage.atomic_files import write_atomically

__all__ = ["HostDirectory"]

log = logging.getLogger(__name__)

_VARIABLE: Final = "FASTN_HOST_DIRECTORY"
_TIME_STEP: Final = 50_000_000
"""Nanoseconds within which two changes of a directory may get the same time: the kernel's steps have up to 10 ms."""
_MOST_FILES: Final = 64
"""Files of one identity that are looked at."""


class HostDirectory:
    """One file for each identity and endpoint, named ``<ID52>.<first 16 hex digits of the endpoint>``.

    Records prove themselves, so a file that somebody else has written costs a look and no trust. Only a directory
    of this user's own, closed to others, is used; without one the directory is empty and ``problem`` says why.
    """

    def __init__(self, path: Path, endpoint: bytes) -> None:
        self._path = path
        self._suffix = endpoint.hex()[:16]
        self._published: set[str] = set()
        self._names: dict[str, list[str]] = {}
        """ID52 → its files, when the directory had last changed at ``_listed``, seen at ``_listed_at``."""
        self._listed = self._listed_at = 0
        self.problem = ""

    @classmethod
    def find(cls, endpoint: bytes) -> HostDirectory:
        """At ``$FASTN_HOST_DIRECTORY``, else in the user's runtime directory."""
        configured = os.environ.get(_VARIABLE)
        return cls(Path(configured) if configured else runtime_directories()[0] / "hosts", endpoint)

    def open(self) -> None:
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self._path.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                self.problem = f"{self._path} belongs to somebody else or is open to others (mode must be 0700)"
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"
        if self.problem:
            log.warning("daemons on this machine are not found by ID52: %s", self.problem)
            return
        for unfinished in self._path.glob(f".*.{self._suffix}.*.tmp"):  # of a process before us that was killed
            with contextlib.suppress(OSError):
                unfinished.unlink()

    def publish(self, identity: PublicKey, record: bytes) -> None:
        if self.problem:
            return
        try:
            write_atomically(self._file(identity), record)
            self._published.add(identity.id52)
        except StorageFailed as error:
            log.warning("cannot publish %s: %s", identity, error)

    def withdraw(self, identity: PublicKey) -> None:
        if identity.id52 in self._published:
            self._published.discard(identity.id52)
            with contextlib.suppress(OSError):  # somebody else has removed it, or put something in its place
                self._file(identity).unlink()

    def close(self) -> None:
        for id52 in list(self._published):
            self.withdraw(PublicKey(id52))

    def changed_at(self) -> int:
        """Another number whenever a record has come, gone or been replaced; costs one look at the directory."""
        try:
            return 0 if self.problem else self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def records_of(self, key: bytes) -> list[PeerRecord]:
        """Genuine records of the identity, from daemons that are or were here; newest first."""
        if self.problem:
            return []
        found: list[PeerRecord] = []
        for name in self._names_of(PublicKey(key).id52)[:_MOST_FILES]:
            path = self._path / name
            try:
                record = read_record(_read(path))
            except (OSError, P2PError) as error:
                log.debug("%s: %s", path, error)
                continue
            if bytes(record.identity) == key:
                found.append(record)
        return sorted(found, key=lambda record: record.sequence, reverse=True)

    def _names_of(self, id52: str) -> list[str]:
        """The files of an identity. The directory is listed again only when it may have changed since the last time.

        That is so, too, when it was listed so soon after a change that another one may have got the same time.
        """
        changed = self.changed_at()
        if changed != self._listed or self._listed_at - changed < _TIME_STEP:
            self._listed, self._listed_at = changed, time.time_ns()
            self._names = {}
            with contextlib.suppress(OSError):
                for path in self._path.iterdir():
                    self._names.setdefault(path.name.partition(".")[0], []).append(path.name)
        return self._names.get(id52, [])

    def _file(self, identity: PublicKey) -> Path:
        return self._path / f"{identity.id52}.{self._suffix}"


def _read(path: Path) -> bytes:
    """As much of a regular file as a record may have. Raises OSError, also for anything else; never waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no file")
        return os.read(descriptor, MAX_RECORD + 1)
    finally:
        os.close(descriptor)
