"""Watch over the wall clock: whether it was set while the process runs, and what makes it look wrong.

Delegations and records say from when to when they hold. A clock that was set makes those that were signed before worth
nothing to peers, for hours. So the wall clock is compared with the monotonic one: where they have come to disagree, it
was set, or the machine slept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.errors import CredentialError, DelegationExpired, DelegationNotYetValid

__all__ = ["JUMP", "ClockJump", "ClockWatch"]

JUMP: Final = 30.0
"""Seconds by which the clocks must have come to disagree: half of what credentials allow for."""
RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""A time that has passed, whatever the clock says (Unix time)."""
_SAVE_INTERVAL: Final = 60.0
"""Seconds between two times that are kept for the next start."""
_SHOWN_SECONDS: Final = 3600.0
"""Seconds for which ``status`` speaks of a clock that was set."""
_DOUBT_SECONDS: Final = 600.0
"""Seconds for which ``status`` speaks of a peer's delegation that does not hold now."""
_MOST_DOUBTS: Final = 16

Clock = Callable[[], float]


class ClockJump(NamedTuple):
    """A disagreement that came up between two looks."""

    set_by: float
    """Seconds by which somebody has set the wall clock; negative: back."""
    slept: float
    """Seconds for which the machine slept."""


def _boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """The clocks of this machine.

    Args:
        path: keeps the time for the next start.
        wall: Unix time.
        steady: seconds that nobody can set, without those that the machine slept.
        boot: the same with them.
    """

    def __init__(self, path: Path, wall: Clock, *, steady: Clock = time.monotonic, boot: Clock = _boot_clock) -> None:
        self._path = path
        self._wall = wall
        self._steady = steady
        self._boot = boot
        self._offset = wall() - steady()
        self._sleep = boot() - steady()
        self._started = steady()
        self._saved_at = -_SAVE_INTERVAL
        self._behind = self._read_saved() - wall()
        """Seconds between the clock at the start and a later time at which a daemon ran before."""
        self._set: tuple[float, float] | None = None
        """When (steady) and by how much the clock was set last."""
        self._doubts: dict[str, tuple[float, str]] = {}
        """A peer's name → when (steady) its delegation was refused, and what was said of it."""

    def look(self) -> ClockJump | None:
        """Compare the clocks; what has come up since the last such finding. Keeps the time now and then."""
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
        """Keep the time for the next start. A disk that does not take it costs a warning then, and nothing else."""
        self._saved_at = self._steady()
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(f"{int(self._wall())}\n")
            os.replace(temporary, self._path)  # noqa: PTH105

    def doubt(self, peer: str, error: CredentialError) -> None:
        """A known peer's delegation does not hold by this clock."""
        if not isinstance(error, DelegationExpired | DelegationNotYetValid):
            return
        self._doubts.pop(peer, None)
        if len(self._doubts) >= _MOST_DOUBTS:
            del self._doubts[next(iter(self._doubts))]
        what = "ended" if isinstance(error, DelegationExpired) else "starts in"
        ago = " ago" if isinstance(error, DelegationExpired) else ""
        self._doubts[peer] = self._steady(), f"{what} {_duration(error.seconds)}{ago}"

    def warnings(self) -> list[str]:
        """Reasons why the clock looks wrong, in words for people."""
        now, steady = self._wall(), self._steady()
        found: list[str] = []
        if now < RELEASED:
            shown = datetime.fromtimestamp(max(0.0, now), UTC).date().isoformat()
            found.append(f"this machine's clock says {shown}, which cannot be: peers refuse its delegations. Set it")
        elif self._behind > JUMP and steady - self._started < _SHOWN_SECONDS:
            found.append(
                f"this machine's clock is {_duration(self._behind)} behind the time at which the daemon ran before: "
                "if it is wrong, peers refuse its delegations until it is set"
            )
        if self._set is not None and steady - self._set[0] < _SHOWN_SECONDS:
            when, by = self._set
            way = "back" if by < 0 else "forward"
            found.append(
                f"this machine's clock was set {way} by {_duration(abs(by))}, {_duration(steady - when)} ago; "
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


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
