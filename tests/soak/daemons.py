"""The two daemons of a soak, and how their network, disk and clock are disturbed."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Final

from fastn_p2p_client.ipc.messages import AddPeer
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab, reason_to_skip
from tests.support.daemons import Daemon
from tests.support.protocols import install_protocols
from tests.support.shifted_clock import ShiftedClock
from tests.support.two_daemons import add_binding, add_identity

__all__ = ["SoakDaemons", "SoakSide", "start_soak_daemons"]

_DISK: Final = 96 * 1024 * 1024
"""Bytes of the file system that is a home."""
_ADDRESSES: Final = range(100, 120)
"""Last parts of the addresses that a host has in turn."""
_NEW_MOUNTS: Final = 0x00020000
_PRIVATE: Final = 0x40000 | 0x4000
_DETACH: Final = 2


@dataclass
class SoakSide:
    """Daemon of a soak, and what can be done to it.

    Attributes:
        host: its network; None where there is no laboratory.
        has_disk: whether its home is a small file system of its own.
    """

    name: str
    daemon: Daemon
    clock: ShiftedClock
    host: Host | None = None
    has_disk: bool = False
    _addresses: Iterator[int] = field(default_factory=lambda: cycle(_ADDRESSES))

    def move(self) -> None:
        """Give the host another address in its network."""
        assert self.host is not None
        offset = 0 if self.name == "alice" else len(_ADDRESSES)
        self.host.set_address(str(self.host.interface.segment.network[next(self._addresses) + offset]))

    def fill_disk(self) -> None:
        """Leave no byte of the home's file system free."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free_disk(self) -> None:
        """Free what was filled."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.daemon.home.path / "filler"


@dataclass
class SoakDaemons:
    """``one`` has alice, ``two`` has bob; both have Mail and what ``add_identity`` gives.

    Attributes:
        bob: his ID52.
        skipped: faults that this machine cannot have, and why.
    """

    one: SoakSide
    two: SoakSide
    bob: str
    skipped: list[str]


@contextmanager
def start_soak_daemons() -> Iterator[SoakDaemons]:
    """Start both. As root, in mounts and networks of their own, which end with this process."""
    skipped: list[str] = []
    if reason := reason_to_skip():
        skipped.append(f"roaming: {reason}")
    if mounts := _leave_mounts():
        skipped.append(f"full disk: {mounts}")
    for each in skipped:
        print(f"left out, {each}")
    with ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="fastn-soak-", dir="/tmp")))
        packages = install_protocols(directory / "packages")["PYTHONPATH"]
        lab = None if reason else closing.enter_context(Lab())
        lan = lab.lan() if lab else None
        sides: list[SoakSide] = []
        for name in ("alice", "bob"):
            home = directory / name
            home.mkdir(mode=0o700)
            if not mounts:
                _mount(home)
                closing.callback(_unmount, home)
            clock = ShiftedClock(directory / f"{name}-site")
            env = {"PYTHONPATH": f"{clock.site}:{packages}"}
            if lab is not None and lan is not None:
                host = lab.host(name, lan)
                daemon: Daemon = HostDaemon(host.namespace, home, directory / f"{name}-hosts", "lan", **env)
                sides.append(SoakSide(name, daemon, clock, host, has_disk=not mounts))
            else:
                daemon = Daemon(home, directory / "hosts", **env)
                sides.append(SoakSide(name, daemon, clock, has_disk=not mounts))
            closing.callback(daemon.clean_up)
            daemon.start()
        keys = [add_identity(side.daemon, side.name) for side in sides]
        for side, peer in zip(sides, reversed(sides), strict=True):
            add_binding(side.daemon, side.name, "Mail", "default", keys[sides.index(peer)])
            ticket = peer.daemon.cli("ticket", peer.name).stdout.strip()
            with side.daemon.client() as client:
                client.control(AddPeer(ticket, peer.name))
        yield SoakDaemons(sides[0], sides[1], keys[1], skipped)


def _leave_mounts() -> str:
    """Give this process, and what it starts from now on, mounts of its own. Return why that cannot be."""
    if os.geteuid() != 0:
        return "a small file system needs a mount: only root can"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE, None):
        return f"a small file system needs a mount: {os.strerror(ctypes.get_errno())}"
    return ""


def _mount(home: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={_DISK},mode=700".encode()
    if libc.mount(b"tmpfs", os.fsencode(home), b"tmpfs", 0, options):
        raise OSError(ctypes.get_errno(), "mount")


def _unmount(home: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(home), _DETACH)
