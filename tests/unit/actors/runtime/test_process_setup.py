"""Setup of a process of the daemon."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import pty
import re
import resource
import struct
import subprocess
import sys

import pytest

from fastn_p2p_actors.runtime.process_setup import TIME_SLICE, only_write_to_terminal, private_size, release_zero_pages


def test_a_terminal_can_only_be_written_to() -> None:
    ours, terminal = pty.openpty()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for descriptor in (1, 2):
                os.dup2(terminal, descriptor)
            os.write(ours, b"secret\n")
            only_write_to_terminal()
            os.write(1, b"1")
            os.write(2, b"2")
            refused = 0
            for descriptor in (1, 2):
                try:
                    os.read(descriptor, 10)
                except OSError:
                    refused += 1
            code = 0 if refused == 2 else 2
        finally:
            os._exit(code)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        seen = b""  # with the echo of what was typed, before or after
        while not {*b"12"} <= {*seen}:
            seen += os.read(ours, 100)
    finally:
        os.close(ours)
        os.close(terminal)


def test_pages_with_zeros_go_back_to_the_kernel_and_others_keep_their_content() -> None:
    page = resource.getpagesize()
    buffer = ctypes.create_string_buffer(64 * page)
    ctypes.memmove(ctypes.addressof(buffer) + 10 * page, b"hello", 5)
    expected = buffer.raw
    assert 61 * page <= release_zero_pages(ctypes.addressof(buffer), len(buffer)) <= 63 * page
    assert buffer.raw == expected
    assert b"hello" in expected
    assert release_zero_pages(ctypes.addressof(buffer), 10) == 0


_BY_THREAD = """
import ctypes, threading
from fastn_p2p_actors.runtime.process_setup import private_size, trim_heap, tune_malloc

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)

def use_heap():
    blocks = [libc.malloc(65536) for _ in range(128)]
    for block in blocks:
        ctypes.memset(block, 1, 65536)
    sizes.append(private_size())
    for block in blocks:
        libc.free(block)
    done.set()
    ended.wait()

tune_malloc()
sizes, done, ended = [private_size()], threading.Event(), threading.Event()
thread = threading.Thread(target=use_heap)
thread.start()
done.wait()
trim_heap()
print(*sizes, private_size())
ended.set()
"""


def test_shared_memory_does_not_count_as_private() -> None:
    size = 64 * 1024 * 1024
    before = private_size()
    with mmap.mmap(-1, size) as shared:
        shared.write(b"x" * size)
        after = private_size()
    assert after - before < size // 2


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this libc has no malloc_trim")
def test_memory_that_another_thread_has_freed_goes_back_to_the_kernel() -> None:
    found = subprocess.run([sys.executable, "-c", _BY_THREAD], capture_output=True, text=True, check=True, timeout=60)
    before, highest, after = map(int, found.stdout.split())
    assert highest - before > 7 * 1024 * 1024
    assert after - before < 1024 * 1024


_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
_IN_A_CHILD = """
import ctypes, os, sys, threading
from fastn_p2p_actors.runtime.process_setup import shorten_time_slice

def show():
    found = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(int(sys.argv[1]), 0, found, 48, 0) == 0
    print(found.raw.hex())

os.nice(3)
shorten_time_slice()
show()
thread = threading.Thread(target=show)
thread.start()
thread.join()
"""


def _has_time_slices() -> bool:
    """Return whether the kernel lets a process choose its time slice: Linux 6.12."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    return release is not None and (int(release[1]), int(release[2])) >= (6, 12)


@pytest.mark.skipif(platform.machine() not in _SCHED_GETATTR, reason="the number of a system call is not known")
@pytest.mark.skipif(not _has_time_slices(), reason="this kernel has no time slices of processes")
def test_a_process_and_its_threads_get_a_short_time_slice_and_keep_their_priority() -> None:
    number = str(_SCHED_GETATTR[platform.machine()])
    command = [sys.executable, "-c", _IN_A_CHILD, number]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    shown = [struct.unpack("IIQiIQQQ", bytes.fromhex(line)) for line in found.stdout.split()]
    expected = (os.SCHED_OTHER, min(os.getpriority(os.PRIO_PROCESS, 0) + 3, 19), TIME_SLICE)
    assert [(policy, nice, slice_) for _, policy, _, nice, _, slice_, _, _ in shown] == [expected] * 2
