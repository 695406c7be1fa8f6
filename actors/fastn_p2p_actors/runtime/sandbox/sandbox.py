"""``Sandbox`` of a process, and ``enter``, which applies it and tests that it holds."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from . import landlock, seccomp
from .states import CLOSED, OPEN

_PROCESS_VM_READV: Final = "process_vm_readv"


@dataclass(frozen=True)
class Sandbox:
    """Files, sockets and calls that the kernel leaves a process.

    Attributes:
        files: Landlock rights by path.
        programs: whether it may start programs and fork.
        families: socket families of any type.
        connect, listen: TCP ports; None for all.
        udp: whether it may make UDP sockets.
    """

    files: Mapping[Path, int] = field(default_factory=lambda: MappingProxyType({}))
    programs: bool = False
    families: frozenset[int] = frozenset()
    connect: frozenset[int] | None = frozenset()
    listen: frozenset[int] | None = frozenset()
    udp: bool = False


def enter(sandbox: Sandbox) -> str:
    """Confine this process to the sandbox, for ever. Return its state: ``CLOSED``, or what could not be closed and
    why.

    It never raises: on a kernel that cannot confine, the process works as it is. Call it while the process has one
    thread, because Landlock confines the calling one only.
    """
    missing: list[str] = []
    abi = landlock.version()
    if not _has_one_thread():
        missing.append("the process had started a thread before")
    elif abi < landlock.LEAST_VERSION:
        missing.append("files and ports: " + _landlock_problem(abi))
    else:
        rules = landlock.LandlockRules(
            files=dict(sandbox.files),
            connect=sandbox.connect,
            listen=sandbox.listen,
        )
        try:
            landlock.restrict(rules, abi)
        except OSError as error:
            missing.append(str(error.strerror))
        else:
            if abi < landlock.PORTS_VERSION and sandbox.connect is not None:
                missing.append(f"TCP ports: this kernel has version {abi} of Landlock, ports need 4 (Linux 6.7)")
    if not seccomp.is_supported():
        missing.append("system calls: no table of them for this architecture")
    else:
        missing += _filter_syscalls(sandbox, abi)
    if missing:
        return OPEN + "; ".join(missing)
    return CLOSED


def _filter_syscalls(sandbox: Sandbox, abi: int) -> list[str]:
    own = None if abi >= landlock.SIGNALS_VERSION or sandbox.programs else os.getpid()
    rules = seccomp.SyscallRules(
        programs=sandbox.programs,
        families=sandbox.families,
        tcp=sandbox.connect != frozenset() or sandbox.listen != frozenset(),
        udp=sandbox.udp,
        signals=own,
    )
    try:
        seccomp.install(rules)
    except OSError as error:
        return [str(error.strerror)]
    return [] if _refuses_memory_of_others() else ["system calls: the filter lets a call pass that it denies"]


def _refuses_memory_of_others() -> bool:
    """Return whether a call that every sandbox denies is refused, which the kernel would allow on oneself."""
    number = ctypes.c_long(seccomp.syscall_number(_PROCESS_VM_READV))
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    done = libc.syscall(number, ctypes.c_int(os.getpid()), None, none, None, none, none)
    return bool(done == -1 and ctypes.get_errno() == errno.EPERM)


def _has_one_thread() -> bool:
    return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208


def _landlock_problem(abi: int) -> str:
    if abi:
        return f"this kernel has version {abi} of Landlock, {landlock.LEAST_VERSION} (Linux 6.2) is needed"
    return "this kernel has no Landlock, or it is switched off (lsm= of the kernel's command line)"


INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK})
"""Families of the network process."""
