"""Store of seen epochs and sequences: no restart and no crash makes an old key or record valid again.

The store has two files in ``home/peers``. ``.seen.json`` is a snapshot. ``.seen.journal`` has a line for each later
entry of a known peer, written before the entry counts. One entry costs one short write, however many there are.

A thread folds a long journal into a new snapshot. Meanwhile the old journal is named ``.seen.journal.old``, and new
entries go to a new one. Entries only ever rise, so reading one twice does no harm.

The journal's only entries of strangers are retired transport keys. Their other entries are in the snapshot, which is
written once a minute while there are new ones. A crash loses those of the last minute, and nothing relies on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import P2PError, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..credentials import EpochTracker, SequenceTracker
from ..storage.atomic_files import write_atomically

log = logging.getLogger(__name__)

_SNAPSHOT: Final = ".seen.json"
_JOURNAL: Final = ".seen.journal"
_OLD_JOURNAL: Final = ".seen.journal.old"
_SNAPSHOT_EVERY: Final = 60.0
"""Seconds between two snapshots at least, while only entries of strangers are new."""
_LONG: Final = 4096
"""Number of lines from which a journal is folded into the snapshot."""


class _Snapshot(msgspec.Struct):
    epochs: dict[str, int] = {}
    sequences: dict[str, list[int | str]] = {}
    strangers: dict[str, int] = {}
    """Epochs of strangers. Files of older versions have them in ``epochs``."""


class _Epoch(msgspec.Struct, tag="epoch", array_like=True):
    identity: str
    lineage: str
    epoch: int


class _Retired(_Epoch, tag="retired"):
    """Epoch of a stranger that has retired a lower one."""


class _Sequence(msgspec.Struct, tag="sequence", array_like=True):
    identity: str
    sequence: int
    digest: str


_lines: Final = msgspec.json.Decoder(_Epoch | _Retired | _Sequence)


class SeenStore:
    """Trackers of epochs and sequences of one daemon, and their files.

    Args:
        directory: an existing directory.
        is_known: returns whether the owner deals with an identity.
        is_present: returns whether an identity is proven over an open connection.
        clock: returns monotonic seconds.
        check_revoked: raises IdentityRevoked for a revoked identity.

    Attributes:
        epochs, sequences: the trackers.
        warnings: files and lines that could not be read, for ``status``.
    """

    def __init__(
        self,
        directory: Path,
        is_known: Callable[[bytes], bool],
        is_present: Callable[[bytes], bool],
        clock: Callable[[], float] = time.monotonic,
        *,
        check_revoked: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self.epochs = EpochTracker(
            is_known=is_known,
            is_present=is_present,
            on_kept=self._write_epoch,
            on_retired=self._write_retired,
            check_revoked=check_revoked,
        )
        self.sequences = SequenceTracker(is_known=is_known, on_noted=self._write_sequence)
        self.warnings: list[str] = []
        self._journal: int | None = None
        self._lines = 0
        self._failed = False
        self._sync: asyncio.Future[None] | None = None
        self._unsynced = False
        self._clock = clock
        self._saved_at = clock()
        self._saved_changes = 0

    def load(self) -> None:
        """Read the files. Damaged parts become a warning; the rest counts."""
        try:
            saved = msgspec.json.decode((self._directory / _SNAPSHOT).read_bytes(), type=_Snapshot)
            self.epochs.restore_dict(saved.epochs)
            self.epochs.restore_dict(saved.strangers, kept=False)
            self.sequences.restore_dict(saved.sequences)
        except FileNotFoundError:
            pass
        except (OSError, *UNDECODABLE, P2PError) as error:
            self._warn(f"{self._directory / _SNAPSHOT} is damaged and not used: {error}")
        for name in (_OLD_JOURNAL, _JOURNAL):
            self._load_journal(self._directory / name)

    def _load_journal(self, path: Path) -> None:
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            self._warn(f"{path} cannot be read: {error.strerror}")
            return
        damaged = 0
        for line in lines[:-1]:  # an incomplete last line is from a crash, and has never counted
            try:
                self._restore(line)
            except (*UNDECODABLE, P2PError):
                damaged += 1
        self._lines += len(lines) - 1
        if damaged:
            self._warn(f"{path}: {damaged} of {len(lines) - 1} lines are damaged and not used")

    def _restore(self, line: bytes) -> None:
        entry = _lines.decode(line)
        if isinstance(entry, _Epoch):
            kept = not isinstance(entry, _Retired)
            self.epochs.restore(bytes.fromhex(entry.identity), bytes.fromhex(entry.lineage), entry.epoch, kept=kept)
        else:
            self.sequences.restore(bytes.fromhex(entry.identity), entry.sequence, bytes.fromhex(entry.digest))

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        log.warning("%s", text)

    # ── the journal ──────────────────────────────────────────────────────────────────────────────

    def _write_epoch(self, identity: bytes, lineage: bytes, epoch: int) -> None:
        self._write(_Epoch(identity.hex(), lineage.hex(), epoch))

    def _write_retired(self, identity: bytes, lineage: bytes, epoch: int) -> None:
        self._write(_Retired(identity.hex(), lineage.hex(), epoch))

    def _write_sequence(self, identity: bytes, sequence: int, digest: bytes) -> None:
        self._write(_Sequence(identity.hex(), sequence, digest.hex()))

    def _write(self, entry: _Epoch | _Sequence) -> None:
        """Append one entry. It survives a crash of this process at once, and one of the machine after the sync."""
        try:
            if self._journal is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._journal = os.open(self._directory / _JOURNAL, flags, 0o600)
            os.write(self._journal, msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            if not self._failed:
                log.warning(
                    "cannot write %s, so a restart may forget what was seen: %s", self._directory / _JOURNAL, error
                )
            self._failed = True
            return
        self._failed = False
        self._lines += 1
        self._sync_soon()

    def _sync_soon(self) -> None:
        """Sync the journal in a thread, because a disk can be slow. Later entries are synced after that."""
        self._unsynced = True
        if self._sync is not None or self._journal is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no event loop yet or any more: a synced snapshot follows
            return
        self._unsynced = False
        self._sync = loop.run_in_executor(None, _sync_and_close, os.dup(self._journal))
        self._sync.add_done_callback(self._on_synced)

    def _on_synced(self, _: asyncio.Future[None]) -> None:
        self._sync = None
        if self._unsynced:
            self._sync_soon()

    # ── the snapshot ─────────────────────────────────────────────────────────────────────────────

    def save(self) -> None:
        """Write a snapshot, which is on disk when this returns. Raise StorageFailed if that fails."""
        self._begin_snapshot()()

    async def save_if_due(self) -> None:
        """Fold a long journal, or new entries of strangers, into a snapshot, in a thread.

        Raises:
            StorageFailed: the snapshot cannot be written.
        """
        is_old = self._clock() >= self._saved_at + _SNAPSHOT_EVERY and self.epochs.changes != self._saved_changes
        if self._lines >= _LONG or self._failed or is_old:
            await asyncio.to_thread(self._begin_snapshot())

    def _begin_snapshot(self) -> Callable[[], None]:
        """Return a function that writes the present entries. It may be called in a thread."""
        old = self._directory / _OLD_JOURNAL
        if not old.exists():  # otherwise an earlier snapshot failed, and the journal continues
            if self._journal is not None:
                os.close(self._journal)
                self._journal = None
            with contextlib.suppress(OSError):
                (self._directory / _JOURNAL).replace(old)
        self._lines = 0
        self._failed = False
        self._saved_at, self._saved_changes = self._clock(), self.epochs.changes
        kept, strangers = self.epochs.parts()
        sequences = self.sequences.parts()

        def write() -> None:
            data = msgspec.json.encode(_Snapshot(kept(), sequences(), strangers()))
            try:
                write_atomically(self._directory / _SNAPSHOT, data)
            except StorageFailed:
                self._failed = True
                raise
            old.unlink(missing_ok=True)

        return write


def _sync_and_close(descriptor: int) -> None:
    try:
        with contextlib.suppress(OSError):
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
