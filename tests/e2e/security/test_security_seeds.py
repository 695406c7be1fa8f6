"""Secrets of identities are in the vault's locked memory and its files, and nowhere else."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_actors.vault.key_file import HEADER_BYTES
from fastn_p2p_client.ipc.messages import AddProtocol, DeleteIdentity, GetTicket
from tests.conftest import MakeDaemon
from tests.support.daemons import Daemon
from tests.support.processes import child
from tests.support.vault_process import regions, scan

pytestmark = pytest.mark.usefixtures("daemons_are_programs")

NAMES: Final = [f"id{number}" for number in range(10)]
OFFLINE: Final = NAMES[7:9]
DELETED: Final = NAMES[9]

PROGRAM: Final = """
import sys
from fastn_p2p_client.sync import Client
with Client(program="observed") as client:
    print(client.call("id0", sys.argv[1], "Echo", request={"message": "hi"}), flush=True)
    sys.stdin.read()
"""


def forms(seed: bytes) -> dict[str, bytes]:
    """A seed in the forms in which it could give itself away."""
    return {
        "raw": seed,
        "half": seed[:16],
        "hex": seed.hex().encode(),
        "HEX": seed.hex().upper().encode(),
        "base64": base64.b64encode(seed)[:42],
    }


def family(pid: int) -> dict[int, str]:
    """The process and all that descend from it, with their names."""
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        pid = todo.pop()
        with suppress(FileNotFoundError, ProcessLookupError):  # a process that has just ended
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
            found[pid] = name
    return found


def files(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    """Each file with its content. A temporary file of an atomic write may be gone before it is read."""
    for folder in folders:
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the vault's memory")
def test_ten_seeds_are_in_the_vaults_locked_memory_and_in_its_files_and_nowhere_else(
    make_daemon: MakeDaemon, hosts: Path
) -> None:
    daemon = make_daemon("one", FASTN_LOG="DEBUG").start()
    keys = {name: daemon.identity(name, echo=False, online=name not in (*OFFLINE, DELETED)) for name in NAMES}
    key_files = {name: daemon.home.vault / "identities" / f"{name}.key" for name in NAMES}
    seeds = {name: path.read_bytes()[HEADER_BYTES:] for name, path in key_files.items()}
    assert {len(seed) for seed in seeds.values()} == {32}
    use(daemon, keys)
    needles = {f"{name}: {form}": text for name, seed in seeds.items() for form, text in forms(seed).items()}

    program = [sys.executable, "-c", PROGRAM, keys["id1"]]
    with child(
        subprocess.Popen(program, env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ) as client:
        assert client.stdout is not None
        assert "Echo: hi" in client.stdout.readline()
        assert daemon.process is not None
        processes = {**family(daemon.process.pid), client.pid: "the client"}
        vault = daemon.pid("vault")
        assert len(processes) >= 1 + 1 + 3 + 7 + 1, processes  # supervisor, fork server, actors, identities, client
        hits = {pid: scan(pid, needles) for pid in processes}
        client.communicate("")

    locked = [region for region in regions(vault) if "lo" in region.flags]
    assert locked
    for pid, name in processes.items():
        for needle, places in hits[pid].items():
            whose, form = needle.split(": ")
            expected = 1 if pid == vault and form in ("raw", "half") and whose != DELETED else 0
            assert len(places) == expected, f"{needle} in {name}: {places}"
            assert all(place in locked for place in places), f"{needle} in {name}: {places}"

    assert not key_files[DELETED].exists()
    holders = {
        path
        for path, content in files(daemon.home.path, daemon.home.sockets, hosts)
        if any(each in content for each in needles.values())
    }
    assert holders == {path for name, path in key_files.items() if name != DELETED}


def use(daemon: Daemon, keys: dict[str, str]) -> None:
    """Calls among the identities, tickets, the commands of a terminal; and one identity goes."""
    with daemon.client() as client:
        for name in NAMES[:7]:
            client.control(AddProtocol(name, "Echo", "default"))
        for caller, callee in zip(NAMES[:7], [*NAMES[1:7], NAMES[0]], strict=True):
            assert client.call(caller, keys[callee], "Echo", request={"message": "hi"}) == {"echoed": "Echo: hi"}
            client.control(GetTicket(caller))
        client.control(DeleteIdentity(DELETED))
    assert daemon.cli("list-identities").returncode == 0
    assert daemon.cli("status").returncode == 0
