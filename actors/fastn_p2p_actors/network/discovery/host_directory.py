"""The host directory: daemons of one user on one machine leave the records of their identities there for each other."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import P2PError, StorageFailed
from fastn_p2p_client.home import runtime_directories
from fastn_p2p_client.keys import PublicKey, id52_of

from ...credentials import MAX_RECORD, PeerRecord, is_revocation, read_record
from ...storage.atomic_files import write_atomically

log = logging.getLogger(__name__)

_VARIABLE: Final = "FASTN_HOST_DIRECTORY"
_TIME_STEP: Final = 50_000_000
"""Nanoseconds within which two changes of a directory may get the same time stamp. The kernel's clock for time stamps
has steps of up to 10 ms."""
_MEETING: Final = "pairing-"
"""Beginning of the names of meeting records."""
_MOST_FILES: Final = 64
"""Number of files that are read for one identity."""


class HostDirectory:
    """Directory with one file per identity and endpoint, named ``<ID52>.<first 16 hex digits of the endpoint>``.

    Records are signed, so a forged file is read and ignored. The directory is used only if it belongs to this user and
    is closed to other users. Otherwise it counts as empty, and ``problem`` says why.

    Args:
        endpoint: public key of this daemon's endpoint, 32 bytes.

    Attributes:
        problem: why the directory is not used; empty if it is.
        on_revocation: called with a signed revocation that another daemon has left, not verified, and with its file.
    """

    def __init__(self, path: Path, endpoint: bytes) -> None:
        self._path = path
        self._suffix = endpoint.hex()[:16]
        self._published: set[str] = set()
        self._names: dict[str, list[str]] = {}
        """ID52 to the names of its files, as of the directory's time stamp ``_listed``, read at ``_listed_at``."""
        self._listed = self._listed_at = 0
        self.problem = ""
        self.on_revocation: Callable[[bytes, str], object] = lambda _blob, _origin: None

    @classmethod
    def find(cls, endpoint: bytes) -> HostDirectory:
        """Return the host directory: ``$FASTN_HOST_DIRECTORY``, else one in the user's runtime directory."""
        return cls(_path(), endpoint)

    def open(self) -> None:
        """Create the directory if it is missing, check it, and delete what a killed daemon left unfinished."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self._path.stat()
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                self.problem = f"{self._path} belongs to another user or is open to other users (its mode must be 0700)"
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"
        if self.problem:
            log.warning("daemons on this machine do not find each other by ID52: %s", self.problem)
            return
        for unfinished in self._path.glob(f".*.{self._suffix}.*.tmp"):
            with contextlib.suppress(OSError):
                unfinished.unlink()

    def meeting_file(self, label: str) -> Path:
        """Return the file of a pairing's meeting record. Its name is no identity's, so no daemon reads it."""
        return self._path / f"{_MEETING}{label}.{self._suffix}"

    def meeting_files(self, label: str = "") -> list[Path]:
        """Return the meeting records that processes of this machine have written, by default those of all pairings."""
        return [] if self.problem else list(self._path.glob(f"{_MEETING}{label}*.*"))

    def publish(self, identity: PublicKey, record: bytes) -> None:
        """Write the identity's record, in place of an earlier one. A failure is a warning in the log."""
        if self.problem:
            return
        try:
            write_atomically(self._file(identity), record, synced=False)
            self._published.add(identity.id52)
        except StorageFailed as error:
            log.warning("cannot publish %s to daemons on this machine: %s", identity, error)

    def unpublish(self, identity: PublicKey) -> None:
        """Delete the record that this daemon has published for the identity."""
        if identity.id52 in self._published:
            self._published.discard(identity.id52)
            with contextlib.suppress(OSError):  # another process has removed or replaced it
                self._file(identity).unlink()

    def close(self) -> None:
        """Delete every record that this daemon has published."""
        for id52 in list(self._published):
            self.unpublish(PublicKey(id52))

    def changed_at(self) -> int:
        """Return the directory's time stamp: it changes with each record that comes or goes. Costs one ``stat``."""
        try:
            return 0 if self.problem else self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def records_of(self, key: bytes) -> list[PeerRecord]:
        """Return records of the identity with valid signatures, newest first. Their daemons may have stopped."""
        return [record for record, _ in self._signed_records_of(key)]

    def signed_records_of(self, key: bytes, *, late_by: float = 0.0) -> list[bytes]:
        """Return the same records as they were signed.

        Args:
            late_by: seconds by which files that come or go may be noticed late. Each record that is published changes
                the directory: without this, ten thousand of them would list it ten thousand times.
        """
        return [blob for _, blob in self._signed_records_of(key, late_by)]

    def _signed_records_of(self, key: bytes, late_by: float = 0.0) -> list[tuple[PeerRecord, bytes]]:
        if self.problem:
            return []
        found: list[tuple[PeerRecord, bytes]] = []
        for name in self._names_of(id52_of(key), late_by)[:_MOST_FILES]:
            path = self._path / name
            try:
                blob = _read(path)
                if is_revocation(blob):
                    self.on_revocation(blob, str(path))
                    continue
                record = read_record(blob)
            except (OSError, P2PError) as error:
                log.debug("%s: %s", path, error)
                continue
            if bytes(record.identity) == key:
                found.append((record, blob))
        return sorted(found, key=lambda each: each[0].sequence, reverse=True)

    def _names_of(self, id52: str, late_by: float) -> list[str]:
        """Return the names of an identity's files. List the directory again only if it may have changed.

        It may also have changed if it was listed so soon after a change that a second one got the same time stamp.
        """
        if 0 <= time.time_ns() - self._listed_at < late_by * 1e9:
            return self._names.get(id52, [])
        changed = self.changed_at()
        if changed != self._listed or self._listed_at - changed < _TIME_STEP:
            self._listed, self._listed_at = changed, time.time_ns()
            self._names = {}
            with contextlib.suppress(OSError), os.scandir(self._path) as entries:
                for name in (entry.name for entry in entries):  # faster than a path for each
                    self._names.setdefault(name.partition(".")[0], []).append(name)
        return self._names.get(id52, [])

    def _file(self, identity: PublicKey) -> Path:
        return self._path / f"{identity.id52}.{self._suffix}"


def _read(path: Path) -> bytes:
    """Read a regular file up to the size of the largest record. Raise OSError for anything else. Never waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return os.read(descriptor, MAX_RECORD + 1)
    finally:
        os.close(descriptor)


def _path() -> Path:
    configured = os.environ.get(_VARIABLE)
    return Path(configured) if configured else runtime_directories()[0] / "hosts"


def make_host_directory() -> Path:
    """Return the host directory, and create it if that is possible. ``HostDirectory.open`` checks it."""
    path = _path()
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
