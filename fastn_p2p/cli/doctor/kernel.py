"""Checks of the kernel: what sandboxes, notice of new addresses and the scheduler need, and its clock."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Callable, Iterator
from typing import Final

from fastn_p2p_actors.runtime.sandbox import landlock, seccomp

from ..netcheck.check import OFF, OK, UNKNOWN, WARNING, Check

_CHANGES: Final = 0x1 | 0x10 | 0x100
"""Netlink groups: links, IPv4 addresses, IPv6 addresses (rtnetlink(7))."""
_TIME_SLICES: Final[tuple[int, ...]] = (6, 12)
"""Linux from which a process may choose the length of its turns."""
_TIME_ERROR: Final = 5
"""Result of adjtimex(2): the clock is not synchronized."""


def check_kernel(*, sandbox: bool, release: str = "", clock_state: Callable[[], int] | None = None) -> Iterator[Check]:
    """Return checks of the kernel.

    Args:
        sandbox: whether the settings want sandboxes.
        release: version of the kernel; empty for the present one.
        clock_state: returns what adjtimex(2) returns.
    """
    release = release or os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version: tuple[int, ...] = (int(numbers[1]), int(numbers[2])) if numbers is not None else ()
    yield (
        _check_sandbox(release)
        if sandbox
        else Check(
            name="sandbox", state=OFF, text="the settings turn sandboxes off", advice="config set limits.sandbox true"
        )
    )
    yield _check_netlink()
    turns = "processes run in short turns" if version >= _TIME_SLICES else "turns of processes are of the usual length"
    yield Check(name="kernel", state=OK, text=f"Linux {release} on {os.uname().machine}; {turns}")
    yield _check_clock(clock_state or _clock_state)


def _check_sandbox(release: str) -> Check:
    try:
        version = landlock.version()
    except OSError:
        version = 0
    if not version:
        text = f"Linux {release} has no Landlock here, so files and ports of processes are not confined"
        advice = "add landlock to lsm= of the kernel's command line, or separate the processes by users (operations.md)"
        return Check(name="sandbox", state=WARNING, text=text, advice=advice)
    if not seccomp.is_supported():
        text = "system calls are not confined on this architecture; files are"
        return Check(name="sandbox", state=WARNING, text=text, advice="x86-64 and arm64 can do that")
    if version < landlock.SIGNALS_VERSION:
        text = f"Landlock version {version}: the kernel leaves something open"
        return Check(name="sandbox", state=WARNING, text=text, advice="Linux 6.12 or later confines all")
    return Check(name="sandbox", state=OK, text=f"Landlock version {version}, and system calls are confined")


def _check_netlink() -> Check:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as probe:
            probe.bind((0, _CHANGES))
    except OSError as error:
        text = f"the kernel gives no notice of new addresses ({error.strerror}), so they are noticed seconds later"
        advice = "add AF_NETLINK to RestrictAddressFamilies= of the unit"
        return Check(name="netlink", state=WARNING, text=text, advice=advice)
    return Check(name="netlink", state=OK, text="changes of addresses are noticed at once")


def _check_clock(state: Callable[[], int]) -> Check:
    found = state()
    if found < 0:
        return Check(name="time", state=UNKNOWN, text="the kernel does not say whether the clock is synchronized")
    if found == _TIME_ERROR:
        text = "the kernel says that the clock is not synchronized; peers allow for 60 s"
        return Check(name="time", state=WARNING, text=text, advice="run an NTP client: timedatectl set-ntp true")
    return Check(name="time", state=OK, text="the kernel says that the clock is synchronized")


def _clock_state() -> int:
    buffer = ctypes.create_string_buffer(256)  # struct timex, with modes = 0: only read
    return int(ctypes.CDLL(None).adjtimex(buffer))
