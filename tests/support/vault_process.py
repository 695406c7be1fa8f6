"""A vault in a process of its own, as the supervisor would run it, and ways to look at it from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fastn_p2p_actors.runtime.curve.curve_connection import vault_channel
from fastn_p2p_actors.runtime.curve.keys import generate_vault_keys
from fastn_p2p_actors.runtime.specs import ActorSpec, VaultAccess
from fastn_p2p_actors.vault.messages import VaultReply
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import ErrorReply
from fastn_p2p_client.ipc.request_channel import RequestChannel, decode_answer
from tests.support.processes import child

__all__ = ["Region", "RunningVault", "VaultRequests", "regions", "running_vault", "scan", "vault_requests"]

PROGRAM = """
import asyncio, ctypes, resource, signal, sys
import msgspec, uvloop
from fastn_p2p_actors.runtime.log_files import configure_logging
from fastn_p2p_actors.runtime.specs import ActorSpec
from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_actors.vault.actor import serve
from fastn_p2p_actors.vault.passphrase import Argon2Cost

PR_GET_DUMPABLE = 3

async def main():
    context = ActorContext(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ActorSpec))
    configure_logging(context.home, context.name)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, context.stop_requested.set)
    async def tell():
        await context.is_ready.wait()
        print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE), *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
    telling = asyncio.ensure_future(tell())
    await serve(context, cost=Argon2Cost(passes=1, memory=8192))
    await telling

uvloop.run(main())
"""

_replies: msgspec.msgpack.Decoder[VaultReply] = msgspec.msgpack.Decoder(VaultReply)


class RunningVault(NamedTuple):
    home: Home
    process: subprocess.Popen[bytes]
    access: dict[str, VaultAccess]
    """Role → its keys."""
    dumpable: bool
    """Report of the process: whether other processes of its user may trace it."""
    core_limits: tuple[int, int]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def resident(self) -> int:
        """Bytes of memory in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@contextmanager
def running_vault(folder: Path) -> Iterator[RunningVault]:
    """A vault that is ready, for the home ``folder``; killed at the end unless it has ended."""
    home = Home(folder)
    for directory in (home.path, home.sockets / "run", home.logs):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    roles = generate_vault_keys()
    spec = ActorSpec(
        name="vault",
        module="fastn_p2p_actors.vault",
        home=str(folder),
        heartbeat=1.0,
        settings=msgspec.to_builtins(roles.vault),
    )
    with child(
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.msgpack.encode(spec))
            process.stdin.close()
            said = [int(word) for word in process.stdout.readline().split()]
            assert len(said) == 3, "the vault has ended"
            access = {"gateway": roles.gateway, "network": roles.network}
            yield RunningVault(home, process, access, dumpable=said[0] != 0, core_limits=(said[1], said[2]))
        finally:
            process.kill()


class VaultRequests:
    """Requests of a role to a vault; error replies are raised."""

    def __init__(self, link: RequestChannel) -> None:
        self.link = link

    async def __call__(self, request: msgspec.Struct, *, timeout: float = 60.0) -> Any:
        reply = decode_answer(_replies, (await self.link.request(request, timeout=timeout)).header)
        if isinstance(reply, ErrorReply):
            raise reply.error()
        return reply


@asynccontextmanager
async def vault_requests(vault: RunningVault, role: str) -> AsyncIterator[VaultRequests]:
    link = vault_channel(vault.home.mailbox("vault"), vault.access[role])
    link.open()
    try:
        yield VaultRequests(link)
    finally:
        link.close()


class Region(NamedTuple):
    """A part of a process's memory, as smaps in proc(5) describes it."""

    start: int
    end: int
    name: str
    flags: frozenset[str]
    anonymous: int
    """KiB that are in use and not the file's."""

    @property
    def is_empty(self) -> bool:
        """True if it has no bytes but zeros, or those of a file on disk, such as the code of a library."""
        return not self.anonymous and "sh" not in self.flags

    @property
    def guarded(self) -> bool:
        """Locked, not dumped, and empty after a fork."""
        return {"lo", "dd", "wf"} <= self.flags


def regions(pid: int) -> list[Region]:
    """Raises PermissionError where only root may look."""
    found: list[Region] = []
    head: list[str] = []
    anonymous = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("VmFlags:"):
            start, end = (int(part, 16) for part in head[0].split("-"))
            name = head[5] if len(head) > 5 else ""
            found.append(Region(start, end, name, frozenset(line.split()[1:]), anonymous))
        elif line.startswith("Rss:"):
            anonymous = 0
        elif line.startswith(("Anonymous:", "Swap:")):
            anonymous += int(line.split()[1])
        elif not line.split()[0].endswith(":"):
            head = line.split()
    return found


def scan(pid: int, needles: dict[str, bytes]) -> dict[str, list[Region]]:
    """Needle's name → the regions in which it was found, once for each time."""
    hits: dict[str, list[Region]] = {name: [] for name in needles}
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for region in regions(pid):
            if region.is_empty:
                continue
            if "rd" not in region.flags or region.name in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            memory.seek(region.start)
            try:
                content = memory.read(region.end - region.start)
            except OSError:
                continue
            for name, needle in needles.items():
                hits[name] += [region] * content.count(needle)
    return hits
