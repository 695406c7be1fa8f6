"""``Sandbox`` of a process, and ``enter``, which applies it and tests that it holds."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from ..forked_work import run_in_fork
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

    def real_paths(self) -> dict[str, int]:
        """Return the rights by path, with links resolved."""
        return {os.path.realpath(path): rights for path, rights in self.files.items()}


@dataclass(frozen=True)
class CompiledSandbox:
    """Sandbox as the kernel takes it, for one process.

    Attributes:
        ruleset: descriptor of the Landlock rules; -1 if there are none.
        program: filter of system calls; empty if there is none.
        missing: what cannot be closed, and why.
    """

    ruleset: int
    program: bytes
    missing: tuple[str, ...] = ()


def enter(sandbox: Sandbox) -> str:
    """Confine this process to the sandbox, for ever. Return its state: ``CLOSED``, or what could not be closed and
    why.

    It never raises: on a kernel that cannot confine, the process works as it is. Call it while the process has one
    thread, because Landlock confines the calling one only.
    """
    return enter_compiled(compile_sandbox(sandbox, os.getpid()))


def compile_sandbox(sandbox: Sandbox, pid: int) -> CompiledSandbox:
    """Return the sandbox for the process ``pid``. This confines nothing. It never raises."""
    missing: list[str] = []
    ruleset = -1
    abi = landlock.version()
    if abi < landlock.LEAST_VERSION:
        missing.append("files and ports: " + _landlock_problem(abi))
    else:
        rules = landlock.LandlockRules(dict(sandbox.files), sandbox.connect, sandbox.listen)
        try:
            ruleset = landlock.make_ruleset(rules, abi)
        except OSError as error:
            missing.append(str(error.strerror))
        else:
            if abi < landlock.PORTS_VERSION and sandbox.connect is not None:
                missing.append(f"TCP ports: this kernel has version {abi} of Landlock, ports need 4 (Linux 6.7)")
    program = b""
    if not seccomp.is_supported():
        missing.append("system calls: no table of them for this architecture")
    else:
        program = seccomp.compile_rules(
            seccomp.SyscallRules(
                programs=sandbox.programs,
                families=sandbox.families,
                tcp=sandbox.connect != frozenset() or sandbox.listen != frozenset(),
                udp=sandbox.udp,
                signals=None if abi >= landlock.SIGNALS_VERSION or sandbox.programs else pid,
            )
        )
    return CompiledSandbox(ruleset, program, tuple(missing))


def compile_in_fork(make: Callable[[], Sandbox]) -> CompiledSandbox:
    """Return the sandbox for this process. A fork works it out: see ``forked_work``."""
    pid = os.getpid()

    def work() -> tuple[bytes, int]:
        compiled = compile_sandbox(make(), pid)
        return msgspec.msgpack.encode((compiled.program, compiled.missing)), compiled.ruleset

    done = run_in_fork(work)
    if done is None:
        return compile_sandbox(make(), pid)
    program, missing = msgspec.msgpack.decode(done[0], type=tuple[bytes, tuple[str, ...]])
    return CompiledSandbox(done[1], program, missing)


def enter_compiled(compiled: CompiledSandbox) -> str:
    """Confine this process as ``enter`` does."""
    missing = list(compiled.missing)
    if compiled.ruleset >= 0:
        if not _has_one_thread():
            os.close(compiled.ruleset)
            missing.append("the process had started a thread before")
        else:
            try:
                landlock.restrict(compiled.ruleset)
            except OSError as error:
                missing.append(str(error.strerror))
    if compiled.program:
        try:
            seccomp.install(compiled.program)
        except OSError as error:
            missing.append(str(error.strerror))
        else:
            if not _refuses_memory_of_others():
                missing.append("system calls: the filter lets a call pass that it denies")
    return OPEN + "; ".join(missing) if missing else CLOSED


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
