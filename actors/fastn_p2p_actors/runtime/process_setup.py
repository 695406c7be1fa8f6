"""Setup of a new process: signals, limits, memory and protection against other processes.

Linux only: ``prctl(2)``, ``/proc``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from .sandbox.seccomp import syscall_number

MAX_FILES: Final = 65536
TITLE_BYTES: Final = 15
"""Bytes of a process's name that the kernel keeps (comm in proc(5))."""
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
MADV_DONTNEED: Final = 4
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""Parameters of mallopt(3)."""
TIME_SLICE: Final = 100_000
"""Nanoseconds of a turn on a processor: the shortest that the kernel gives."""
_SCHED_ATTR: Final = struct.Struct("IIQiIQQQ")
"""``struct sched_attr`` of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period."""

_libc = ctypes.CDLL(None, use_errno=True)
_fork_server = 0
_supervisor = 0
_is_actor = False


def mark_fork_server() -> None:
    """Mark this process as the fork server. Its children check that it still runs."""
    global _fork_server, _supervisor
    _fork_server = os.getpid()
    _supervisor = os.getppid()


def supervisor_pid() -> int:
    """Return the pid of the supervisor; 0 in a process that does not come from the fork server."""
    return _supervisor


def is_sibling(parent: int) -> bool:
    """Return whether a process with this parent belongs to the daemon: its processes come from the fork server."""
    return bool(_fork_server) and parent == _fork_server


def daemon_processes() -> frozenset[int]:
    """Return the pids of the fork server and the supervisor, from which all processes of the daemon descend.

    Empty in a process that the fork server has not started.
    """
    if not _fork_server:
        return frozenset()
    parent = int(Path(f"/proc/{_fork_server}/stat").read_text().rpartition(")")[2].split()[1])
    return frozenset({_fork_server, parent} - {0, 1})


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, however busy this process is.

    A parent that ended before the call goes unnoticed: check ``getppid`` afterwards.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def make_undumpable() -> None:
    """Forbid other processes of the user to trace this one or read its memory, and forbid new privileges.

    Programs that it starts get no privileges from a file (set-user-ID, capabilities). The kernel gives most of
    ``/proc/<pid>`` to root: other processes see what ``stat``, ``statm`` and ``status`` show. Forked children inherit
    both. A program that they execute must call this again, because exec resets the first of the two.
    """
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def become_subreaper() -> None:
    """Make this process the new parent of descendants whose own parent ends, instead of init."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def erase_variables(*names: str) -> None:
    """Overwrite the text of variables that this process has removed from its environment.

    The kernel put the text on the stack when the program began. It shows it in ``/proc``, and forks copy it.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[47]), int(fields[48])  # env_start and env_end of proc_pid_stat(5)
    at = begin
    for text in ctypes.string_at(begin, end - begin).split(b"\0"):
        if os.fsdecode(text.partition(b"=")[0]) in names:
            ctypes.memset(at, 0, len(text))
        at += len(text) + 1


def set_memory_limit(size: int) -> None:
    """Limit the private writable memory of this process and of each that it starts, in bytes; 0 sets no limit.

    A request for more raises ``MemoryError``.
    """
    if size:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def set_soft_limit(pid: int, kind: int, most: int) -> None:
    """Set a soft limit of a process of this user, 0 for the calling one, to ``most``; 0 for as much as its hard limit.

    Raises:
        OSError: there is no such process.
    """
    _, hard = resource.prlimit(pid, kind)
    wanted = most or resource.RLIM_INFINITY
    if hard != resource.RLIM_INFINITY and (wanted == resource.RLIM_INFINITY or wanted > hard):
        wanted = hard
    resource.prlimit(pid, kind, (wanted, hard))


def memory_in_use() -> int:
    """Return the bytes that count for ``set_memory_limit``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def own_memory() -> int:
    """Return the proportional set size of this process in bytes: shared memory counts in equal parts.

    Once the process is undumpable, only it may read this. The kernel needs up to some milliseconds.
    """
    try:
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def boot_ms() -> int:
    """Return milliseconds since boot, sleep included. Setting the wall clock does not change them."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def private_size() -> int:
    """Return the resident bytes of this process without files and shared memory (statm in proc(5))."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)  # a Path takes five times as long, and checks are frequent
    try:
        _, resident, shared, *_ = os.read(descriptor, 128).split()
    finally:
        os.close(descriptor)
    return (int(resident) - int(shared)) * resource.getpagesize()


def set_title(name: str) -> None:
    """Set the process's name in ``ps -o comm`` and ``top``: ``fastn-vault``, ``fastn@alice`` (cut after 15 bytes)."""
    identity = name.removeprefix("identity-")
    title = f"fastn-{name}" if identity == name else f"fastn@{identity}"
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(title.encode()[:TITLE_BYTES]), 0, 0, 0)


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit, at most 65536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def only_write_to_terminal() -> None:
    """Open the terminal of standard output and error again, for writing only.

    A shell opens it once for reading and writing. Code in this process could read there what the owner types.
    """
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.isatty(descriptor):
                opened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NOCTTY)
                os.dup2(opened, descriptor)
                os.close(opened)


def forbid_core_files() -> None:
    """Forbid core files of this process: they would contain keys and messages."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tune_malloc() -> None:
    """Take blocks of up to 4 MiB from one heap, and let the heap keep up to 16 MiB of free memory.

    By default, glibc returns each large block to the kernel, which must clear its pages when the next one is needed.
    It also gives other threads heaps of their own, of which ``trim_heap`` keeps the free end: up to 16 MiB each.
    """
    mallopt = getattr(_libc, "mallopt", None)  # glibc's; musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024)
        mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024)
        mallopt(M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Return the heap's free pages to the kernel, also those between used blocks. No effect without glibc (musl)."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def release_zero_pages(address: int, size: int) -> int:
    """Return the pages of a block of memory that have only zeros to the kernel, and return how many bytes that are.

    They still read as zeros. uvloop's event loop has a buffer of 250 KiB that is cleared at its start and used by few
    programs. Call it while nothing else writes to the block.
    """
    page = resource.getpagesize()
    zeros = bytes(page)
    released = 0
    for at in range(-(-address // page) * page, (address + size) // page * page, page):
        if (
            ctypes.string_at(at, page) == zeros
            and _libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(page), MADV_DONTNEED) == 0
        ):
            released += page
    return released


def release_unused_stack() -> None:
    """Return the zero pages of the main thread's stack to the kernel. Call it in that thread.

    The binding of an iroh endpoint uses a megabyte of it, once.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[stack]"):
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            release_zero_pages(begin, end - begin)


def shorten_time_slice() -> None:
    """Ask the scheduler to run this process, its later threads and its children in turns of ``TIME_SLICE``.

    Their share of the processors stays the same. No effect before Linux 6.12, and on a process that is not scheduled
    by default rules.

    A call passes four processes, and may wait at each until another process has used up its turn: 3 ms by default. On
    two processors that are also used by others, the 99th percentile of calls fell from 2.2 ms to 1.3 ms, and a session
    became faster by a twentieth.
    """
    number = syscall_number("sched_setattr")
    if number >= 0 and os.sched_getscheduler(0) == os.SCHED_OTHER:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, os.SCHED_OTHER, 0, nice, 0, TIME_SLICE, 0, 0)
        _libc.syscall(number, 0, attributes, 0)


def initialize_child(channel: int, umask: int = 0o077) -> bool:
    """Turn a fresh child of the fork server into an actor process. Return False if its parent is gone already.

    Ctrl-C in the terminal goes to the supervisor alone, which ends its children in order.

    Args:
        channel: descriptor of the control channel.
        umask: bits that its new files lack.

    Raises:
        RuntimeError: ``mark_fork_server`` was not called in the fork server.
    """
    global _is_actor
    if not _fork_server:
        raise RuntimeError("not a child of the fork server")
    die_with_parent()
    if os.getppid() != _fork_server:
        return False
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(umask)
    only_write_to_terminal()
    make_undumpable()
    forbid_core_files()
    raise_file_limit()
    tune_malloc()
    shorten_time_slice()
    os.set_inheritable(channel, False)  # passed over a socket, which makes it inheritable
    _is_actor = True
    return True


def is_actor_process() -> bool:
    """Return whether this process runs one actor and nothing else, and so may be confined."""
    return _is_actor
