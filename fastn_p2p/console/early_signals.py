"""Signals that arrive while a program starts: a command that runs until a signal ends as it does later.

Problem: a command takes a tenth of a second to import what it needs, more on a busy machine. Until its event loop
listens, SIGTERM killed it, although it ends with exit code 0 a moment later. Idea: the program holds signals from its
first line on. Once the command is known, they take the effect that they have on this command.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

_HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


_Effect = Callable[[int, FrameType | None], Any] | int
_EFFECTS: Final[Mapping[str, Mapping[int, _Effect]]] = {
    "daemon": dict.fromkeys(_HELD, _end),
    "relay": {signal.SIGTERM: _end, signal.SIGINT: _end, signal.SIGHUP: signal.SIG_IGN},
    "open": {signal.SIGTERM: _end},
    "forward": {signal.SIGTERM: _end},
    "pair": {signal.SIGTERM: _interrupt, signal.SIGHUP: _interrupt},
    "replica": {signal.SIGTERM: _interrupt, signal.SIGHUP: _interrupt},
    "demo": {signal.SIGTERM: _interrupt},
}
"""Signals that have another effect on a command than usual. A relay reads at its start what SIGHUP has it read."""

_usual: Final[dict[int, Any]] = {}
_arrived: Final[list[int]] = []


def hold_signals() -> None:
    """Hold signals from now on, and those that were blocked before this program was executed. Ignored ones stay so."""
    for number in _HELD:
        usual = signal.getsignal(number)
        if usual not in (signal.SIG_IGN, None):
            _usual[number] = usual
            signal.signal(number, lambda number, frame: _arrived.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def release_signals(command: str) -> None:
    """Have signals take their effect on a command from now on, also those that were held or blocked.

    Args:
        command: its words; empty if it is not known.

    Raises:
        SystemExit: a signal arrived with which the command ends with exit code 0.
        KeyboardInterrupt: a signal arrived that interrupts the command.
    """
    effects = _EFFECTS.get(command, {})
    for number, usual in _usual.items():
        signal.signal(number, effects.get(number, usual))
    _usual.clear()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)  # by a program that did not hold them
    _send_arrived()


def block_signals() -> None:
    """Block signals until the program that is executed next in this process holds them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    _send_arrived()


def _send_arrived() -> None:
    arrived, _arrived[:] = _arrived[:], []
    for number in arrived:
        os.kill(os.getpid(), number)
