"""File that is written some time after a change, in a thread, because changes may come faster than a disk writes.

``load_file`` reads such a file at the start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from fastn_p2p_client.errors import P2PError, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ...storage.atomic_files import write_atomically

T = TypeVar("T")

log = logging.getLogger(__name__)


def load_file(path: Path, kind: type[T], restore: Callable[[T], object], consequence: str) -> str:
    """Read a JSON file. Return the reason why it cannot be used; empty if it can, or if there is none.

    Args:
        restore: takes the content; raises ValueError or P2PError if it is not valid.
        consequence: what follows ``PATH is damaged`` in the reason.
    """
    try:
        restore(msgspec.json.decode(path.read_bytes(), type=kind))
    except FileNotFoundError:
        pass
    except (OSError, *UNDECODABLE, P2PError) as error:
        return f"{path} is damaged{consequence}: {error}"
    return ""


class LazyFile:
    """File with a state that changes often. A crash loses the changes of the last ``seconds``.

    Args:
        path: the file, in an existing directory.
        encode: returns the state.
        seconds: time between a change and the write that contains it.
    """

    def __init__(self, path: Path, encode: Callable[[], bytes], seconds: float) -> None:
        self._path = path
        self._encode = encode
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._is_changed = False
        self._lock = threading.Lock()
        """Held while the file is written."""
        self._version = 0
        self._written = 0

    def changed(self) -> None:
        """Write the file soon, unless that is due already."""
        self._is_changed = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._on_due)

    def save(self) -> None:
        """Write the changes now. A file that cannot be written becomes one line in the log."""
        self._cancel()
        if self._is_changed:
            self._write(*self._state())

    def save_or_raise(self) -> None:
        """Write the state now, and raise StorageFailed if that fails."""
        self._cancel()
        version, data = self._state()
        with self._lock:
            write_atomically(self._path, data)
            self._written = version

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_due(self) -> None:
        self._timer = None
        _ = asyncio.get_running_loop().run_in_executor(None, self._write, *self._state())

    def _state(self) -> tuple[int, bytes]:
        self._is_changed = False
        self._version += 1
        return self._version, self._encode()

    def _write(self, version: int, data: bytes) -> None:
        """Write a state unless a newer one is on disk. May run in a thread."""
        with self._lock:
            if version < self._written:
                return
            try:
                write_atomically(self._path, data)
            except StorageFailed as error:
                if not self._failed:
                    log.warning("%s. A restart will forget its last changes", error)
                self._failed = True
            else:
                self._failed, self._written = False, version
