"""``python -m tests.benchmarks.busy SHARE``: use CPU like ``SHARE`` busy processors until it is killed.

The control of a measure beside attackers: it takes as much CPU as they do, and does not talk to the daemon.
"""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Final

__all__: list[str] = []

_PERIOD: Final = 0.01
"""Seconds of one period: a process is busy in its first part, and sleeps in the rest."""


def _burn(share: float) -> None:
    while True:
        until = time.process_time() + share * _PERIOD
        while time.process_time() < until:
            pass
        time.sleep((1 - share) * _PERIOD)


def main(share: float) -> None:
    processes = max(1, math.ceil(share))
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    _burn(min(1.0, share / processes))


if __name__ == "__main__":
    main(float(sys.argv[1]))
