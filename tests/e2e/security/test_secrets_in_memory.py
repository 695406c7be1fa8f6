"""Memory of all processes of a daemon, searched for secrets: locked, unlocked by each slot, and locked again."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fastn_p2p.console.vault_request import request_vault
from fastn_p2p_actors.credentials.sodium import ffi
from fastn_p2p_actors.vault.owner_messages import LockVault, OwnerRequest, SlotKind, UnlockVault
from fastn_p2p_client.home import Home
from tests.support.daemons import Daemon, eventually
from tests.support.locked_vaults import LockedVault, delivered
from tests.support.vault_process import Region, scan

pytestmark = pytest.mark.usefixtures("daemons_are_programs")

PASSPHRASE = b"correct horse " + os.urandom(8).hex().encode()
CODE = b"apple river stone cloud tiger house music green piano salad table zebra"
KEY = os.urandom(32).hex().encode()
SLOTS = {SlotKind.RECOVERY_CODE: CODE, SlotKind.CREDENTIAL: KEY}
HALF = 16
"""Bytes of a key that are searched for, so that a part of it is found, too."""
IN_THE_VAULT = frozenset({"lo", "dd"})
"""Flags of memory that is locked and not dumped: see ``Region``."""

Hits = dict[str, list[tuple[str, Region]]]
"""Secret → process and place, once for each copy."""


class SecretDaemon:
    """Daemon whose vault has several slots."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon(folder / "home", folder / "hosts")
        self.home = Home(folder / "home")
        self.home.path.mkdir(mode=0o700)
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        vault = LockedVault(self.home.vault)
        await vault.set_passphrase(PASSPHRASE)
        for kind, secret in SLOTS.items():
            await vault.add(kind, secret, PASSPHRASE)
        vault.close()

    async def secrets(self) -> dict[str, bytes]:
        """Return the first halves of the keys on disk, and of the master key."""
        vault = LockedVault(self.home.vault)
        await vault.unlock(PASSPHRASE)
        try:
            pairs = {"transport": vault.store.transport.pair, "alice": vault.store.find("alice").pair}
            page = vault.lock._page
            assert page is not None
            master = bytes(ffi.buffer(page.pointer, HALF))
            return {**{name: bytes(pair.seed_view)[:HALF] for name, pair in pairs.items()}, "master": master}
        finally:
            vault.close()

    def ask(self, request: OwnerRequest, secret: bytes = b"") -> None:
        with delivered(secret) as descriptor:
            request_vault(self.home.path, request, *([descriptor] if secret else []))

    def search(self, needles: dict[str, bytes]) -> Hits:
        """Search all processes of the daemon."""
        found: Hits = {name: [] for name in needles}
        assert self.daemon.process is not None
        supervisor = psutil.Process(self.daemon.process.pid)
        names = {process.pid: process.name for process in self.daemon.status().processes}
        for pid in (supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))):
            try:
                for name, regions in scan(pid, needles).items():
                    found[name] += [(names.get(pid, f"process {pid}"), region) for region in regions]
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
        return found


@pytest.fixture
def secret() -> Iterator[SecretDaemon]:
    folder = Path(tempfile.mkdtemp(prefix="fastn-"))
    made = SecretDaemon(folder)
    try:
        made.daemon.start()
        yield made
    finally:
        made.daemon.clean_up()
        shutil.rmtree(folder)


def test_no_process_has_a_secret_where_it_does_not_belong(secret: SecretDaemon) -> None:
    daemon = secret.daemon
    spelling = b" ".join(word[:4] for word in CODE.split())
    typed = {"passphrase": PASSPHRASE, "code": CODE, "its spelling": spelling, "key": KEY}
    secret.ask(UnlockVault(), PASSPHRASE)
    eventually(lambda: daemon.cli("identity", "create", "alice").returncode == 0, "alice is created")
    daemon.cli("identity", "online", "alice")
    needles = {**typed, **asyncio.run(secret.secrets())}
    daemon.stop()
    daemon.start()
    try:
        at_start = secret.search(needles)
    except PermissionError:
        pytest.skip("only root may look into the memory of other processes")
    assert at_start == {name: [] for name in needles}
    for opener in (KEY, CODE, PASSPHRASE):
        secret.ask(UnlockVault(), opener)
        eventually(lambda: daemon.cli("ticket", "alice").returncode == 0, "alice is online")
        check(secret.search(needles), typed, unlocked=True)
        secret.ask(LockVault())
        check(secret.search(needles), typed, unlocked=False)


def check(found: Hits, typed: dict[str, bytes], *, unlocked: bool) -> None:
    assert {name: found[name] for name in typed} == {name: [] for name in typed}
    for name in ("alice", "master"):
        assert {process for process, _ in found[name]} <= ({"vault"} if unlocked else set()), name
        assert all(region.flags >= IN_THE_VAULT for _, region in found[name]), name
    assert {process for process, _ in found["transport"]} <= {"vault", "network"}
    in_vault = [region for process, region in found["transport"] if process == "vault"]
    assert [region.flags >= IN_THE_VAULT for region in in_vault] in ([], [True]), "more than one copy in locked memory"
