"""Filter of system calls, as a BPF program for the kernel (seccomp(2)).

A refused call returns EPERM: the code that makes it sees an ordinary error. There is no library for this that comes as
a plain wheel: the bindings of libseccomp need the C library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

from .syscall_numbers import SYSCALLS

_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1
"""Flag: apply the filter to every thread."""
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32: Final = 0x40000000
"""Bit in the numbers of x86-64's second table of calls."""

_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_LOAD: Final = 0x20
_AND: Final = 0x54
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

_CLONE_THREAD: Final = 0x00010000
_CLONE_NEW: Final = 0x7E020080
"""Flags of clone(2) that make namespaces."""
_TCP: Final = 6
_FAST_OPEN: Final = 0x20000000
"""Flag of send(2) that connects, which Landlock does not see."""
_TYPE_MASK: Final = 0xF
_NETLINK: Final = socket.AF_NETLINK

ALWAYS_DENIED: Final = (
    # memory, descriptors and system calls of other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_getfd"),
    *("move_pages", "migrate_pages"),
    # mounts and namespaces
    *("mount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree"),
    *("mount_setattr", "setns", "unshare"),
    # large parts of the kernel that no process of the daemon needs
    *("bpf", "keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup", "io_uring_enter"),
    *("io_uring_register", "perf_event_open", "fanotify_init", "name_to_handle_at", "open_by_handle_at"),
    *("personality", "modify_ldt", "iopl", "ioperm", "syslog", "quotactl", "quotactl_fd"),
    # memory and queues that all programs of the user share, and that Landlock does not know
    *("shmget", "shmat", "shmctl", "semget", "semctl", "semop", "semtimedop", "msgget", "msgctl", "msgsnd", "msgrcv"),
    *("mq_open", "mq_unlink"),
    # the machine: root alone may do these anyway
    *("acct", "adjtimex", "clock_adjtime", "clock_settime", "settimeofday", "delete_module", "finit_module"),
    *("init_module", "kexec_load", "kexec_file_load", "reboot", "sethostname", "setdomainname", "swapon", "swapoff"),
    "vhangup",
)
_OF_OTHERS: Final = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
"""Calls that change another process if this argument is not 0, which stands for the calling one."""
_SCHEDULING: Final = ("sched_setattr", "sched_setparam", "sched_setscheduler")
"""Calls that change the scheduling of the thread in their first argument; 0 stands for the calling one. With another
thread they do nothing and report success: libzmq does that to its own threads, and ends the process when refused."""
_TERMINAL_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX of ioctl(2): they type into the terminal from which the daemon was started."""
_SIGNALS: Final = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
"""Calls whose first argument is the process that gets a signal."""


_libc = ctypes.CDLL(None, use_errno=True)


class SeccompFailed(OSError):
    """The kernel did not install the filter."""


@dataclass(frozen=True)
class SyscallRules:
    """Calls that stay allowed, beside everything that no rule mentions.

    Attributes:
        programs: start programs and fork.
        families: socket families for any type of socket.
        tcp, udp: make TCP or UDP sockets.
        signals: None to leave signals alone; else the only process that may get some.
    """

    programs: bool = False
    families: frozenset[int] = frozenset()
    tcp: bool = False
    udp: bool = False
    signals: int | None = None


def is_supported() -> bool:
    """Return whether there is a table of system calls for this machine."""
    return platform.machine() in _ARCHITECTURES and struct.calcsize("P") == 8


def syscall_number(name: str) -> int:
    """Return the number of a system call on this machine; -1, which no call has, if it has none."""
    number: int | None = getattr(SYSCALLS[name], platform.machine(), None)
    return -1 if number is None else number


def compile_rules(rules: SyscallRules) -> bytes:
    """Return the filter for ``install``."""
    return assemble(rules, platform.machine())


@cache
def io_uring_filter() -> bytes:
    """Return the filter of ``deny_io_uring``."""
    code = _Program(platform.machine())
    code.begin()
    code.deny("io_uring_setup")
    return code.end()


def deny_io_uring() -> None:
    """Deny io_uring, before an event loop sets it up and then fails to use it. No effect where there is no filter."""
    if is_supported():
        with suppress(SeccompFailed):
            install(io_uring_filter())


def install(program: bytes) -> None:
    """Filter the system calls of all threads of this process, and of all that it starts, from now on.

    The process must have ``PR_SET_NO_NEW_PRIVS``.

    Raises:
        SeccompFailed: nothing is filtered.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    number = ctypes.c_long(_SECCOMP[platform.machine()])
    if _libc.syscall(number, ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_TSYNC), ctypes.c_char_p(header)) != 0:
        code = ctypes.get_errno()
        raise SeccompFailed(code, f"seccomp: {os.strerror(code)}")


def assemble(rules: SyscallRules, machine: str) -> bytes:
    """Return the BPF program. It ends with ALLOW, so a call that no rule mentions is allowed.

    Args:
        rules: what stays allowed.
        machine: ``x86_64`` or ``aarch64``.
    """
    code = _Program(machine)
    code.begin()
    for name in ALWAYS_DENIED:
        code.deny(name)
    for name, argument in _OF_OTHERS.items():
        code.deny_unless_equal(name, argument, 0)
    code.deny("setrlimit")
    code.deny_unless_null("prlimit64", 2)  # limits may be read; the supervisor sets them
    for name in _SCHEDULING:
        code.deny_unless_equal(name, 0, 0, code=0)
    code.deny("clone3", errno.ENOSYS)  # its flags are in memory, which a filter cannot read; libc then uses clone
    code.deny_if_flags("clone", 0, _CLONE_NEW)
    if not rules.programs:
        for name in ("execve", "execveat", "fork", "vfork"):
            code.deny(name)
        code.deny_unless_flags("clone", 0, _CLONE_THREAD)
    if rules.signals is not None:
        for name in _SIGNALS:
            code.deny_unless_equal(name, 0, rules.signals)
        code.deny("tkill")
        code.deny("pidfd_send_signal")
    for command in _TERMINAL_INPUT:
        code.deny_if_equal("ioctl", 1, command)
    for name, argument in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        code.deny_if_flags(name, argument, _FAST_OPEN)
    code.sockets(rules)
    return code.end()


class _Program:
    """Instructions of one filter. The number of the call is in the accumulator between two rules."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._code: list[tuple[int, int, int, int]] = []

    def begin(self) -> None:
        """Refuse system calls of other architectures: they have other numbers."""
        self._add(_LOAD, _ARCHITECTURE_AT)
        self._add(_EQUAL, _ARCHITECTURES[self._machine], 1, 0)
        self._return_error(errno.EPERM)
        self._add(_LOAD, _NUMBER_AT)
        if self._machine == "x86_64":
            self._add(_AT_LEAST, _X32, 0, 1)
            self._return_error(errno.ENOSYS)

    def end(self) -> bytes:
        self._add(_RETURN, _ALLOW)
        return b"".join(struct.pack("=HBBI", code, true, false, value) for code, value, true, false in self._code)

    def deny(self, name: str, code: int = errno.EPERM) -> None:
        number = self._number(name)
        if number is not None:
            self._add(_EQUAL, number, 0, 1)
            self._return_error(code)

    def deny_unless_equal(self, name: str, argument: int, value: int, code: int = errno.EPERM) -> None:
        """Deny the call unless the argument, as 32 bits, has this value."""
        self._rule(name, [(_LOAD, _argument_at(argument), 0, 0), (_EQUAL, value & 0xFFFFFFFF, 1, 0), _denied(code)])

    def deny_unless_null(self, name: str, argument: int) -> None:
        """Deny the call unless the argument, a pointer of 64 bits, is null."""
        low, high = _argument_at(argument), _argument_at(argument) + 4
        body = [(_LOAD, low, 0, 0), (_EQUAL, 0, 1, 0), _denied(), (_LOAD, high, 0, 0), (_EQUAL, 0, 1, 0), _denied()]
        self._rule(name, body)

    def deny_if_equal(self, name: str, argument: int, value: int) -> None:
        """Deny the call if the argument, as 32 bits, has this value."""
        self._rule(name, [(_LOAD, _argument_at(argument), 0, 0), (_EQUAL, value, 0, 1), _denied()])

    def deny_if_flags(self, name: str, argument: int, flags: int) -> None:
        """Deny the call if the argument has one of the flags."""
        self._rule(name, [(_LOAD, _argument_at(argument), 0, 0), (_AND, flags, 0, 0), (_EQUAL, 0, 1, 0), _denied()])

    def deny_unless_flags(self, name: str, argument: int, flags: int) -> None:
        """Deny the call unless the argument has all of the flags."""
        self._rule(name, [(_LOAD, _argument_at(argument), 0, 0), (_AND, flags, 0, 0), (_EQUAL, flags, 1, 0), _denied()])

    def sockets(self, rules: SyscallRules) -> None:
        """Deny sockets of other families and types, and pairs of datagram sockets: those could send to a path."""
        allowed: list[tuple[int, int, int]] = []
        family: int
        for family in (socket.AF_INET, socket.AF_INET6):
            if rules.tcp:
                allowed += [(family, socket.SOCK_STREAM, 0), (family, socket.SOCK_STREAM, _TCP)]
            if rules.udp:
                allowed += [(family, socket.SOCK_DGRAM, 0), (family, socket.SOCK_DGRAM, socket.IPPROTO_UDP)]
        if rules.tcp or rules.udp:
            allowed += [(_NETLINK, kind, 0) for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM)]  # getaddrinfo(3)
        body: list[tuple[int, int, int, int]] = [(_LOAD, _argument_at(0), 0, 0)]
        for family in sorted(rules.families):
            body += [(_EQUAL, family, 0, 1), (_RETURN, _ALLOW, 0, 0)]
        for family, kind, protocol in allowed:
            body += [
                (_LOAD, _argument_at(0), 0, 0),
                (_EQUAL, family, 0, 6),
                (_LOAD, _argument_at(1), 0, 0),
                (_AND, _TYPE_MASK, 0, 0),
                (_EQUAL, kind, 0, 3),
                (_LOAD, _argument_at(2), 0, 0),
                (_EQUAL, protocol, 0, 1),
                (_RETURN, _ALLOW, 0, 0),
            ]
        self._rule("socket", [*body, _denied()])
        if socket.AF_UNIX not in rules.families:
            kinds = [(_EQUAL, kind, 0, 1) for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)]
            body = [(_LOAD, _argument_at(0), 0, 0), (_EQUAL, socket.AF_UNIX, 1, 0), _denied()]
            body += [(_LOAD, _argument_at(1), 0, 0), (_AND, _TYPE_MASK, 0, 0)]
            for test in kinds:
                body += [test, (_RETURN, _ALLOW, 0, 0)]
            self._rule("socketpair", [*body, _denied()])

    def _rule(self, name: str, body: Iterable[tuple[int, int, int, int]]) -> None:
        """Add a rule for one call: its body, skipped for other calls, then the number in the accumulator again."""
        number = self._number(name)
        if number is None:
            return
        whole = [*body, (_LOAD, _NUMBER_AT, 0, 0)]
        self._add(_EQUAL, number, 0, len(whole))
        self._code += whole

    def _number(self, name: str) -> int | None:
        number: int | None = getattr(SYSCALLS[name], self._machine)
        return number

    def _return_error(self, code: int) -> None:
        self._add(_RETURN, _ERROR | code)

    def _add(self, code: int, value: int, true: int = 0, false: int = 0) -> None:
        self._code.append((code, value, true, false))


def _argument_at(number: int) -> int:
    """Return the place of the low 32 bits of an argument. Both architectures are little-endian."""
    return _ARGUMENTS_AT + 8 * number


def _denied(code: int = errno.EPERM) -> tuple[int, int, int, int]:
    return (_RETURN, _ERROR | code, 0, 0)
