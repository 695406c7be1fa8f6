"""Slow-down of wrong passphrases, on disk so that a restart does not reset it.

An attempt counts before it is made: to end the process in the middle of one gains nothing. A success sets the count to
zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import PassphraseDelayed, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE

from ..storage.atomic_files import write_atomically

FREE_ATTEMPTS: Final = 3
"""Wrong passphrases in a row without a delay: typing errors."""
MAX_DELAY: Final = 300.0
"""Seconds of the longest delay. The delay doubles from 1 s with each further wrong passphrase."""

log = logging.getLogger(__name__)


class _Attempts(msgspec.Struct):
    failures: int = 0
    not_before: float = 0.0
    """Unix time of the next attempt."""


class AttemptLog:
    """Count of wrong passphrases in a row, in the file ``path``.

    Args:
        clock: return Unix time in seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._state = _Attempts()

    def load(self) -> None:
        """Read the file, if there is one. A damaged one counts as the longest delay."""
        try:
            self._state = msgspec.json.decode(self._path.read_bytes(), type=_Attempts)
        except FileNotFoundError:
            self._state = _Attempts()
        except (OSError, *UNDECODABLE) as error:
            log.warning("%s cannot be used: %s", self._path, error)
            self._state = _Attempts(2 * FREE_ATTEMPTS, self._clock() + MAX_DELAY)

    def wait(self) -> float:
        """Return the seconds until the next attempt: at most ``MAX_DELAY``, also if the clock was set back."""
        return min(max(0.0, self._state.not_before - self._clock()), MAX_DELAY)

    def begin(self) -> None:
        """Count an attempt as wrong.

        Raises:
            PassphraseDelayed: it comes too early, and does not count.
        """
        wait = self.wait()
        if wait > 0:
            raise PassphraseDelayed(seconds=int(wait) + 1)
        failures = self._state.failures + 1
        exponent = failures - FREE_ATTEMPTS
        delay = min(2.0 ** min(exponent, 16), MAX_DELAY) if exponent >= 0 else 0.0
        self._write(_Attempts(failures, self._clock() + delay if delay else 0.0))

    def succeed(self) -> None:
        """Set the count to zero."""
        if self._state.failures:
            self._write(_Attempts())

    def undo(self) -> None:
        """Take back the last attempt: it could not be made."""
        self._write(_Attempts(max(0, self._state.failures - 1), 0.0))

    def _write(self, state: _Attempts) -> None:
        self._state = state
        try:
            write_atomically(self._path, msgspec.json.encode(state))
        except StorageFailed as error:  # a full disk must not keep the owner out; this process still counts
            log.warning("the count of wrong passphrases was not written: %s", error)
