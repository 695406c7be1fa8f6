"""Processes as the kernel accounts for them, also those that this user may not look into."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn, TypeVar

__all__ = ["END_SECONDS", "child", "open_files", "resident", "send_signal", "shared_memories", "signal_if_alive"]

Child = TypeVar("Child", subprocess.Popen[str], subprocess.Popen[bytes])

END_SECONDS: Final = 60.0
"""Seconds that a child process has to end by itself."""


@contextmanager
def child(process: Child) -> Iterator[Child]:
    """Wait for the end of the process after the block, as ``with`` does for ``Popen``, but not for ever.

    The process is killed if the block fails, or if it takes longer than ``END_SECONDS`` to end.
    """
    try:
        yield process
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        process.wait(END_SECONDS)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def open_files(pid: int) -> int:
    """Return how many files the process has open.

    Skips the test where this user may not look: the daemon's processes are undumpable, and then only root may.
    """
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  (names only; the files come and go)
    except PermissionError:
        _skip("only root may count the open files of a process that is undumpable")


def _skip(reason: str) -> NoReturn:
    import pytest  # here, because it takes 0.1 s to load, and processes that tests start import this module

    pytest.skip(reason)


def resident(pid: int) -> int:
    """Return the bytes of memory that the process holds, without those that it shares. Every user may ask."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def shared_memories(pid: int) -> int:
    """Return how many memories of sessions the process has mapped. Skips the test as ``open_files`` does."""
    try:
        return Path(f"/proc/{pid}/maps").read_text().count("/memfd:fastn-p2p-session")
    except PermissionError:
        _skip("only root may read the mappings of a process that is undumpable")


def send_signal(pid: int, number: int) -> None:
    """Send a signal. After SIGSTOP return only when the kernel has stopped each thread of the process.

    Until then a thread on another processor may still answer what arrives.
    """
    os.kill(pid, number)
    if number == signal.SIGSTOP:
        deadline = time.monotonic() + END_SECONDS
        while _has_running_threads(pid):
            assert time.monotonic() < deadline, f"process {pid} does not stop"
            time.sleep(0.001)


def _has_running_threads(pid: int) -> bool:
    for each in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            if each.read_text().rpartition(") ")[2][0] not in "TtZX":
                return True
    return False


def signal_if_alive(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process of a listing, which may have ended since it was listed."""
    with suppress(ProcessLookupError):
        send_signal(pid, number)
