"""What a process of the daemon does to itself before anything else: who it dies with, what it may use and keep.

Linux only: ``prctl(2)``, ``/proc``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Final

__all__ = [
    "become_subreaper",
    "boot_ms",
    "die_with_parent",
    "forbid_core_files",
    "give_back_heap",
    "initialize_child",
    "is_sibling",
    "make_undumpable",
    "mark_fork_server",
    "memory_in_use",
    "own_memory",
    "raise_file_limit",
    "resident_size",
    "set_memory_limit",
    "set_title",
    "tune_malloc",
]

MAX_FILES: Final = 65536
TITLE_BYTES: Final = 15
"""What the kernel keeps of a process's name, comm in proc(5)."""
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Of mallopt(3)."""

_libc = ctypes.CDLL(None, use_errno=True)
_fork_server = 0


def mark_fork_server() -> None:
    """Says that this process is the fork server: whoever is forked from it checks that it still lives."""
    global _fork_server
    _fork_server = os.getpid()


def is_sibling(parent: int) -> bool:
    """Return whether a process with this parent is one of the daemon's: they all come from the fork server."""
    return bool(_fork_server) and parent == _fork_server


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends, however busy this process is.

    A parent that was gone before the call is not noticed: check ``getppid`` afterwards.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def make_undumpable() -> None:
    """From now on no process of the same user can trace this one or read its memory, and nothing that it starts gets
    privileges from a file (set-user-ID, capabilities).

    The kernel gives most of ``/proc/<pid>`` to root: other processes see what ``stat``, ``statm`` and ``status`` show.
    Forked children are like this one; what they execute has to call this again (exec resets the first of the two).
    """
    _prctl(PR_SET_DUMPABLE, 0)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def become_subreaper() -> None:
    """What descends from this process becomes its child when its own parent ends, instead of init's."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def set_memory_limit(size: int) -> None:
    """The kernel gives this process, and each that it starts, no more than so many bytes of private writable memory:
    what asks for more gets ``MemoryError``. 0 leaves it as it is."""
    if size:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def memory_in_use() -> int:
    """Bytes that count for ``set_memory_limit``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def own_memory() -> int:
    """Bytes of this process's proportional set size: of memory that several share, each has its part.

    Only the process itself may ask, once others are kept out. Takes the kernel up to some milliseconds.
    """
    try:
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def boot_ms() -> int:
    """Milliseconds since the machine started, sleep included: nobody can set this clock, so that what was measured
    with it stays right when the wall clock is put right."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def resident_size() -> int:
    """Bytes of memory that this process has at the moment (statm in proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def set_title(name: str) -> None:
    """The process's name in ``ps -o comm`` and ``top``: ``fastn-vault``, ``fastn@alice`` (cut after 15 bytes)."""
    identity = name.removeprefix("identity-")
    title = f"fastn-{name}" if identity == name else f"fastn@{identity}"
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(title.encode()[:TITLE_BYTES]), 0, 0, 0)


def raise_file_limit() -> None:
    """As many open files as the hard limit lets, 65536 at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def forbid_core_files() -> None:
    """No core file of this process: keys and messages would be in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tune_malloc() -> None:
    """Blocks of up to 4 MiB come from the heap, and the heap keeps up to 16 MiB that are free: without this, glibc
    gives each large block back to the kernel, which has to clear its pages when the next one is needed.
    """
    mallopt = getattr(_libc, "mallopt", None)  # glibc's; musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024)
        mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024)


def give_back_heap() -> None:
    """Return the heap's free pages to the kernel, those between blocks in use too. Nothing where libc cannot (musl)."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def initialize_child(leash: int) -> bool:
    """Turns a fresh child of the fork server into an actor's process; False when its parent is gone already.

    Ctrl-C in the terminal goes to the supervisor alone, which ends its children in order.

    Raises:
        RuntimeError: the fork server was not prepared by ``mark_fork_server``.
    """
    if not _fork_server:
        raise RuntimeError("not a child of the fork server")
    die_with_parent()
    if os.getppid() != _fork_server:
        return False
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    make_undumpable()
    forbid_core_files()
    raise_file_limit()
    tune_malloc()
    os.set_inheritable(leash, False)  # arrived over a socket, which makes it inheritable
    _drop_inherited()
    return True


def _drop_inherited() -> None:
    """Closes this process's share of the two pipes that ``multiprocessing`` hands to each child.

    The fork server exits when the last copy of one of them is closed, and must not be kept alive by children; the
    resource tracker is the other one's. Forgetting both lets an actor's code use ``multiprocessing`` afresh.
    """
    from multiprocessing import forkserver, resource_tracker

    server = vars(forkserver)["_forkserver"]
    tracker = vars(resource_tracker)["_resource_tracker"]
    for holder, name in ((server, "_forkserver_alive_fd"), (tracker, "_fd")):
        inherited = getattr(holder, name, None)
        if isinstance(inherited, int):
            os.close(inherited)
            setattr(holder, name, None)
    server._forkserver_address = None
