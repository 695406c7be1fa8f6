"""Checks of limits: of the daemon's processes if one runs, else of this one. And of memory and UDP buffers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastn_p2p_actors.runtime.process_setup import MAX_FILES
from fastn_p2p_client.home import Home

from ...console.formatting import format_memory
from ..netcheck.check import OK, PROBLEM, UNKNOWN, WARNING, Check

_FEW_FILES: Final = 4096
"""Open files below which programs and connections of a busy daemon may be refused."""
_LEAST_FILES: Final = 512
"""Open files below which the daemon is of little use."""
_FEW_PROCESSES: Final = 64
"""Processes below which few identities can be online: there are four, one for each identity, and protocols' own."""
_LOCKED: Final = 64 * 1024
"""Bytes of locked memory that are enough for several hundred identities."""
_LITTLE_MEMORY: Final = 128 * 1024 * 1024
"""Bytes: a daemon with one identity takes some 85 MB."""
_ADDRESS_SPACE: Final = 1024 * 1024 * 1024
_UDP_BUFFER: Final = 7 * 1024 * 1024
"""Bytes that iroh asks for in each direction (``SOCKET_BUFFER_SIZE`` in netwatch's ``udp.rs``)."""


def check_limits(home: Home, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> list[Check]:
    """Return checks of limits.

    Args:
        proc, cgroups: where the kernel shows processes and control groups.
    """
    pid = home.daemon_pid() or os.getpid()
    try:
        limits = _hard_limits((proc / str(pid) / "limits").read_text())
    except OSError as error:
        limits = {}
        checks = [Check(name="limits", state=UNKNOWN, text=f"the limits of process {pid}: {error.strerror}")]
    else:
        checks = list(_check_resources(limits))
    return [*checks, *_check_group(pid, proc, cgroups), *_check_memory(proc), *_check_udp(proc)]


def _hard_limits(text: str) -> dict[str, int]:
    """Return the hard limits by name, from the text that proc(5) describes. Those that are unlimited are left out."""
    rows = (re.fullmatch(r"Max (.+?) {2,}(\w+) +(\w+) *\w*", line.rstrip()) for line in text.splitlines())
    return {row[1]: int(row[3]) for row in rows if row is not None and row[3].isdigit()}


def _check_resources(limits: dict[str, int]) -> Iterator[Check]:
    files = limits.get("open files", MAX_FILES)
    advice = "raise LimitNOFILE= of the unit, or `nofile` in /etc/security/limits.conf, and restart the daemon"
    text = f"each process may open {files:,}"
    if files < _FEW_FILES:
        yield Check(name="files", state=PROBLEM if files < _LEAST_FILES else WARNING, text=text, advice=advice)
    else:
        yield Check(name="files", state=OK, text=text)
    processes = limits.get("processes")
    if processes is not None and processes < _FEW_PROCESSES:
        advice = "raise LimitNPROC= of the unit, or `nproc` in /etc/security/limits.conf"
        text = f"this user may have {processes:,}, of all programs together"
        yield Check(name="processes", state=WARNING, text=text, advice=advice)
    locked = limits.get("locked memory", _LOCKED)
    if locked < _LOCKED:
        text = f"only {format_memory(locked)} can be locked, so keys may be written to the swap area"
        yield Check(name="locked memory", state=WARNING, text=text, advice="raise LimitMEMLOCK= of the unit to 64K")
    space = limits.get("address space", _ADDRESS_SPACE)
    if space < _ADDRESS_SPACE:
        text = f"each process may have {format_memory(space)} of address space, of which most is never used"
        yield Check(name="address space", state=PROBLEM, text=text, advice="remove that limit: ulimit -v unlimited")


def _check_group(pid: int, proc: Path, cgroups: Path) -> Iterator[Check]:
    """Check the limits of the control group, and of those above it (cgroups(7), version 2)."""
    try:
        found = re.search(r"^0::/(.*)$", (proc / str(pid) / "cgroup").read_text(), re.MULTILINE)
    except OSError:
        return
    group = cgroups / (found[1] if found is not None else "")
    tasks = _least(group, cgroups, "pids.max")
    if tasks is not None and tasks < _FEW_PROCESSES:
        text = f"the control group may have {tasks:,}"
        yield Check(name="processes", state=WARNING, text=text, advice="raise TasksMax= of the unit, or --pids-limit")
    memory = _least(group, cgroups, "memory.max")
    if memory is not None and memory < 2 * _LITTLE_MEMORY:
        text = f"the control group may have {format_memory(memory)}"
        advice = "raise MemoryMax= of the unit, or --memory of the container"
        state = PROBLEM if memory < _LITTLE_MEMORY else WARNING
        yield Check(name="memory", state=state, text=text, advice=advice)


def _least(group: Path, root: Path, name: str) -> int | None:
    """Return the lowest limit of a group and those above it; None without one."""
    found: list[int] = []
    for each in (group, *group.parents):
        with suppress(OSError, ValueError):  # there is none: "max", or no such file
            found.append(int((each / name).read_text()))
        if each == root:
            break
    return min(found, default=None)


def _check_memory(proc: Path) -> Iterator[Check]:
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB", (proc / "meminfo").read_text(), re.MULTILINE)
    except OSError:
        return
    if found is None:
        return
    available = int(found[1]) * 1024
    text = f"{format_memory(available)} are available"
    if available < _LITTLE_MEMORY:
        yield Check(name="memory", state=WARNING, text=text, advice="end other programs, or add memory")
    else:
        yield Check(name="memory", state=OK, text=text)


def _check_udp(proc: Path) -> Iterator[Check]:
    """Check the buffers of UDP sockets, and whether packets were lost because they were full."""
    try:
        most = int((proc / "sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        return  # a container that does not show it
    lost = _lost_packets(proc)
    text = f"up to {format_memory(most)}; {lost:,} packets were lost since the start because one was full"
    if lost and most < _UDP_BUFFER:
        advice = f"sysctl -w net.core.rmem_max={_UDP_BUFFER} net.core.wmem_max={_UDP_BUFFER}, also in /etc/sysctl.d"
        yield Check(name="UDP buffers", state=WARNING, text=text, advice=advice)
    else:
        yield Check(name="UDP buffers", state=OK, text=text)


def _lost_packets(proc: Path) -> int:
    """Return how many UDP packets this network namespace has lost for want of buffers."""
    try:
        lines = [line.split() for line in (proc / "net/snmp").read_text().splitlines() if line.startswith("Udp:")]
        return int(dict(zip(*lines[:2], strict=True))["RcvbufErrors"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
