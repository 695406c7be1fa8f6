"""Filters of system calls are well-formed, and decide as their rules say, on both architectures."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

import pytest

from fastn_p2p_actors.runtime.sandbox.seccomp import ALWAYS_DENIED, SyscallRules, assemble
from fastn_p2p_actors.runtime.sandbox.syscall_numbers import SYSCALLS

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED: Final = "allowed"
MOST_INSTRUCTIONS: Final = 4096
"""Instructions that the kernel takes: BPF_MAXINSNS."""


def decide(rules: SyscallRules, machine: str, call: str | int, *arguments: int, architecture: int = 0) -> str:
    """Interpret the program as the kernel does. Return ``ALLOWED`` or the name of the error."""
    number = getattr(SYSCALLS[call], machine) if isinstance(call, str) else call
    padded = [*(each & 0xFFFFFFFFFFFFFFFF for each in arguments), *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *padded)
    program = list(struct.iter_unpack("=HBBI", assemble(rules, machine)))
    assert len(program) <= MOST_INSTRUCTIONS
    at = accumulator = 0
    while True:
        code, true, false, value = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code in (0x15, 0x35):
            met = accumulator == value if code == 0x15 else accumulator >= value
            at += true if met else false
        else:
            assert code == 0x06
            if value == 0x7FFF0000:
                return ALLOWED
            assert value >> 16 == 0x0005
            return errno.errorcode.get(value & 0xFFFF, "success")


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_some_system_calls_are_always_denied(machine: str) -> None:
    for rules in (SyscallRules(), SyscallRules(programs=True, tcp=True, udp=True, families=frozenset({1, 2, 10, 16}))):
        for name in ALWAYS_DENIED:
            if getattr(SYSCALLS[name], machine) is not None:
                assert decide(rules, machine, name) == "EPERM", name


def test_calls_without_a_rule_are_allowed(machine: str) -> None:
    numbers = {getattr(each, machine) for each in SYSCALLS.values()}
    for number in set(range(470)) - numbers:
        assert decide(SyscallRules(), machine, number) == ALLOWED


def test_calls_of_other_architectures_are_denied(machine: str) -> None:
    assert decide(SyscallRules(), machine, 1, architecture=0x40000003) == "EPERM"  # i386
    if machine == "x86_64":
        assert decide(SyscallRules(), machine, 0x40000000 | 1) == "ENOSYS"  # x32


@pytest.mark.parametrize("programs", [True, False])
def test_programs_and_threads(machine: str, programs: bool) -> None:
    rules = SyscallRules(programs=programs)
    expected = ALLOWED if programs else "EPERM"
    for name in ("execve", "execveat", "fork", "vfork"):
        if getattr(SYSCALLS[name], machine) is not None:
            assert decide(rules, machine, name) == expected
    assert decide(rules, machine, "clone", 0x1200011) == expected  # as fork(3) calls it
    assert decide(rules, machine, "clone", 0x3D0F00) == ALLOWED  # as pthread_create(3) calls it
    assert decide(rules, machine, "clone", 0x3D0F00 | 0x10000000) == "EPERM"  # in a new user namespace
    assert decide(rules, machine, "clone3") == "ENOSYS"


def test_sockets(machine: str) -> None:
    tcp = (socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
    udp = (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    local = (socket.AF_UNIX, socket.SOCK_STREAM, 0)
    raw = (socket.AF_INET, socket.SOCK_RAW, 1)
    packet = (17, socket.SOCK_RAW, 0)
    for rules, allowed in (
        (SyscallRules(), ()),
        (SyscallRules(tcp=True), (tcp,)),
        (SyscallRules(udp=True), (udp,)),
        (SyscallRules(families=frozenset({socket.AF_UNIX})), (local,)),
    ):
        for each in (tcp, udp, local, raw, packet):
            assert decide(rules, machine, "socket", *each) == (ALLOWED if each in allowed else "EPERM"), each


def test_pairs_of_sockets(machine: str) -> None:
    """asyncio needs a pair of streams. One of datagrams could send to any path."""
    assert decide(SyscallRules(), machine, "socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0) == ALLOWED
    assert decide(SyscallRules(), machine, "socketpair", socket.AF_UNIX, socket.SOCK_DGRAM, 0) == "EPERM"
    assert decide(SyscallRules(), machine, "socketpair", socket.AF_INET, socket.SOCK_STREAM, 0) == "EPERM"


def test_fast_open_is_denied_because_it_connects(machine: str) -> None:
    rules = SyscallRules(tcp=True)
    assert decide(rules, machine, "sendto", 3, 0, 0, 0x4000) == ALLOWED
    assert decide(rules, machine, "sendto", 3, 0, 0, 0x20004000) == "EPERM"
    assert decide(rules, machine, "sendmsg", 3, 0, 0x20000000) == "EPERM"
    assert decide(rules, machine, "sendmmsg", 3, 0, 1, 0x20000000) == "EPERM"


def test_signals(machine: str) -> None:
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        assert decide(SyscallRules(signals=None), machine, name, 77) == ALLOWED
        assert decide(SyscallRules(signals=77), machine, name, 77) == ALLOWED
        for other in (78, -1, 0, -77):
            assert decide(SyscallRules(signals=77), machine, name, other) == "EPERM"
    assert decide(SyscallRules(signals=77), machine, "pidfd_send_signal", 3) == "EPERM"


def test_calls_on_other_processes(machine: str) -> None:
    assert decide(SyscallRules(), machine, "prlimit64", 0, 7) == ALLOWED
    assert decide(SyscallRules(), machine, "prlimit64", 1, 7) == "EPERM"
    assert decide(SyscallRules(), machine, "setpriority", 0, 0, 5) == ALLOWED
    assert decide(SyscallRules(), machine, "setpriority", 0, 1, 5) == "EPERM"
    assert decide(SyscallRules(), machine, "ioprio_set", 1, 0) == ALLOWED
    assert decide(SyscallRules(), machine, "ioprio_set", 1, 77) == "EPERM"


def test_nothing_is_typed_into_a_terminal(machine: str) -> None:
    rules = SyscallRules(programs=True)
    for command in (0x5412, 0x541C, 0x5412 | 1 << 32):  # the kernel takes 32 bits
        assert decide(rules, machine, "ioctl", 2, command) == "EPERM"
    assert decide(rules, machine, "ioctl", 2, 0x5401) == ALLOWED


def test_limits_are_read_and_not_set(machine: str) -> None:
    for pointer in (1, 1 << 32, 0x7FFF_0000_0000):
        assert decide(SyscallRules(), machine, "prlimit64", 0, 7, pointer) == "EPERM"
    assert decide(SyscallRules(), machine, "prlimit64", 0, 7, 0, 0x7FFF_0000_0000) == ALLOWED
    assert decide(SyscallRules(), machine, "setrlimit", 7) == "EPERM"


def test_scheduling_of_other_threads_does_nothing(machine: str) -> None:
    """libzmq sets that of its threads, and aborts when it is refused."""
    assert decide(SyscallRules(), machine, "sched_setscheduler", 0) == ALLOWED
    assert decide(SyscallRules(), machine, "sched_setscheduler", 1) == "success"
