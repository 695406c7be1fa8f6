"""Restart of the program in its own process, with the same command line."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from .early_signals import block_signals

SUPERVISOR_ORDER: Final = "_FASTN_P2P_SUPERVISOR"
"""Environment variable that has the program run the supervisor; ``supervisor_start`` writes and reads it."""


def restart_program(*interpreter_options: str) -> NoReturn:
    """Execute this program again, with further options of the interpreter. Pid and inheritable descriptors stay."""
    block_signals()
    os.execv(sys.executable, [sys.executable, *interpreter_options, *sys.orig_argv[1:]])  # noqa: S606 - itself
