"""Clock watch: detects that the wall clock was set or that the machine slept, and warns of a clock that looks wrong.

Delegations and records are valid for a period of wall-clock time. After the clock was set, peers may refuse for hours
what was signed before. So the wall clock is compared with the monotonic clock. If their difference has changed, the
clock was set, or the machine slept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.durations import rough_duration
from fastn_p2p_client.errors import CredentialError, DelegationExpired, DelegationNotYetValid

JUMP: Final = 30.0
"""Seconds of difference that count as a jump: half of the tolerance of credentials."""
RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Unix time that has certainly passed. A clock before it is wrong."""
_SAVE_INTERVAL: Final = 60.0
"""Seconds between two writes of the time for the next start."""
_SHOWN_SECONDS: Final = 3600.0
"""Seconds for which ``status`` reports that the clock was set."""
_DOUBT_SECONDS: Final = 600.0
"""Seconds for which ``status`` reports a peer's delegation that is not valid now."""
_MAX_DOUBTS: Final = 16
"""Number of peers with such a delegation that are remembered."""

Clock = Callable[[], float]


class ClockJump(NamedTuple):
    """Change of the difference between the clocks since the last check."""

    set_by: float
    """Seconds by which the wall clock was set; negative if it was set back."""
    slept: float
    """Seconds that the machine slept."""


def boot_clock() -> float:
    """Return monotonic seconds, with those that the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Watches the clocks of this machine.

    Args:
        path: file that keeps the time for the next start.
        wall: returns Unix time.
        steady: returns monotonic seconds, without those that the machine slept.
        boot: returns monotonic seconds, with them.
    """

    def __init__(self, path: Path, wall: Clock, *, steady: Clock = time.monotonic, boot: Clock = boot_clock) -> None:
        self._path = path
        self._wall = wall
        self._steady = steady
        self._boot = boot
        self._offset = wall() - steady()
        self._sleep = boot() - steady()
        self._started = steady()
        self._saved_at = -_SAVE_INTERVAL
        self._behind = self._read_saved() - wall()
        """Seconds by which the clock at the start was behind the time that an earlier process wrote."""
        self._set: tuple[float, float] | None = None
        """Steady time at which the clock was set last, and by how many seconds."""
        self._doubts: dict[str, tuple[float, str]] = {}
        """Petname to the steady time at which the peer's delegation was refused, and the reason."""

    def check(self) -> ClockJump | None:
        """Compare the clocks. Return the jump since the last check, if any. Write the time now and then."""
        steady = self._steady()
        if steady - self._saved_at >= _SAVE_INTERVAL:
            self.save()
        jump = self._wall() - steady - self._offset
        if abs(jump) <= JUMP:
            return None
        slept = self._boot() - steady - self._sleep
        self._offset += jump
        self._sleep += slept
        if abs(jump - slept) > JUMP:
            self._set = steady, jump - slept
            self._behind = 0.0
            self._doubts.clear()
            return ClockJump(jump - slept, slept)
        return ClockJump(0.0, slept)

    def save(self) -> None:
        """Write the time for the next start. A failure only costs a warning there."""
        self._saved_at = self._steady()
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(f"{int(self._wall())}\n")
            os.replace(temporary, self._path)  # noqa: PTH105

    def doubt(self, peer: str, error: CredentialError) -> None:
        """Remember that a known peer's delegation is not valid by this clock: one of the two clocks may be wrong."""
        if not isinstance(error, DelegationExpired | DelegationNotYetValid):
            return
        self._doubts.pop(peer, None)
        if len(self._doubts) >= _MAX_DOUBTS:
            del self._doubts[next(iter(self._doubts))]
        what = "ended" if isinstance(error, DelegationExpired) else "starts in"
        ago = " ago" if isinstance(error, DelegationExpired) else ""
        self._doubts[peer] = self._steady(), f"{what} {rough_duration(error.seconds)}{ago}"

    def warnings(self) -> list[str]:
        """Return reasons why the clock looks wrong, as sentences for ``status``."""
        now, steady = self._wall(), self._steady()
        found: list[str] = []
        if now < RELEASED:
            shown = datetime.fromtimestamp(max(0.0, now), UTC).date().isoformat()
            found.append(f"this machine's clock says {shown}, which cannot be: peers refuse its delegations. Set it")
        elif self._behind > JUMP and steady - self._started < _SHOWN_SECONDS:
            found.append(
                f"this machine's clock is {rough_duration(self._behind)} behind the time at which the daemon ran "
                "before: if it is wrong, peers refuse its delegations until it is set"
            )
        if self._set is not None and steady - self._set[0] < _SHOWN_SECONDS:
            when, by = self._set
            way, ago = "back" if by < 0 else "forward", rough_duration(steady - when)
            found.append(
                f"this machine's clock was set {way} by {rough_duration(abs(by))}, {ago} ago; "
                "delegations were renewed. If it is right now, there is nothing to do"
            )
        for peer, (when, what) in self._doubts.items():
            if steady - when < _DOUBT_SECONDS:
                found.append(f"{peer}'s delegation {what} by this machine's clock: one of the two clocks is wrong")
        return found

    def _read_saved(self) -> float:
        try:
            return float(self._path.read_text())
        except (OSError, ValueError):
            return 0.0
