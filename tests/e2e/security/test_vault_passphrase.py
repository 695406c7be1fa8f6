"""The vault with a passphrase in a running daemon, by the commands of a user."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastn_p2p.console.vault_request import request_vault
from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, LockVault, VaultStatus
from fastn_p2p_actors.vault.passphrase import PRODUCT_COST
from fastn_p2p_client.errors import P2PError, VaultLocked
from fastn_p2p_client.ipc.messages import ListPeers, VaultInfo
from tests.support.daemons import DEADLINE, Daemon, eventually
from tests.support.locked_vaults import LockedVault
from tests.support.terminals import on_terminal

LOCKED = 15
"""Exit code of ``vault-locked``."""


class Owner:
    """Daemon whose vault has a passphrase, and files with that passphrase and with another one."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon(folder / "home", folder / "hosts")
        self.right, self.wrong = folder / "right", folder / "wrong"
        self.right.write_text("correct horse\nsecond line")
        self.wrong.write_text("battery staple\n")

    def vault(self, *arguments: str, code: int = 0) -> str:
        """Run a command of the group, and return what it has written."""
        ended = self.daemon.cli("vault", *arguments)
        assert ended.returncode == code, ended.stderr + self.daemon.report()
        return ended.stdout + ended.stderr

    def unlock(self, *arguments: str) -> str:
        return self.vault("unlock", "--passphrase-file", str(self.right), *arguments)

    def state(self) -> VaultStatus:
        return request_vault(self.daemon.home.path, GetVaultStatus())

    def lock(self) -> None:
        request_vault(self.daemon.home.path, LockVault())

    def echo(self) -> bool:
        """Return whether a call to alice succeeds. Raises VaultLocked."""
        try:
            with self.daemon.client() as client:
                client.call("alice", "alice", "Echo", "default", {"message": "hi"}, timeout=DEADLINE)
        except VaultLocked:
            raise
        except P2PError:
            return False
        return True

    def is_online(self) -> bool:
        try:
            return self.echo()
        except VaultLocked:  # the network process has not asked again yet
            return False


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    """With alice online, and a passphrase that was set while she was."""
    folder = Path(tempfile.mkdtemp(prefix="fastn-"))
    owner = Owner(folder)
    try:
        owner.daemon.start()
        owner.daemon.identity("alice")
        assert "keys not encrypted: fastn-p2p vault set-passphrase" in owner.daemon.cli("status").stdout
        assert "fastn-p2p vault set-passphrase" in owner.vault("lock", code=2)
        said = owner.vault("set-passphrase", "--passphrase-file", str(owner.right))
        assert said == "Encrypted 2 keys. Keep the passphrase: without it they are lost.\n"
        assert owner.echo()
        state = json.loads(owner.vault("status", "--json"))
        assert (state["encrypted"], state["locked"], state["identities"]) == (True, False, 1)
        (slot,) = json.loads((owner.daemon.home.vault / "slots.json").read_bytes())["slots"]
        assert (slot["kind"], slot["memory"], slot["passes"]) == (
            "passphrase",
            PRODUCT_COST.memory,
            PRODUCT_COST.passes,
        )
        owner.daemon.stop()
        asyncio.run(make_cheap(owner.daemon.home.vault))
        owner.daemon.launch("--passphrase-file", str(owner.right))
        assert owner.daemon.wait_ready(), owner.daemon.report()
        assert "1 identity online" in "".join(owner.daemon.errors)
        yield owner
    finally:
        owner.daemon.clean_up()
        shutil.rmtree(folder)


async def make_cheap(folder: Path) -> None:
    """Set the same passphrase once more, with a cost that suits tests. The daemon does not run."""
    vault = LockedVault(folder)
    await vault.set_passphrase(b"correct horse", b"correct horse")
    vault.close()


def test_locked_vault_keeps_what_is_online_online(owner: Owner) -> None:
    said = owner.vault("lock")
    try:
        assert "fastn-p2p vault unlock" in said
        assert json.loads(owner.vault("status", "--json"))["unlock"] == "fastn-p2p vault unlock"
        assert owner.echo()
        for command in (("create-identity", "bob"), ("delete-identity", "alice", "--yes")):
            refused = owner.daemon.cli(*command)
            assert refused.returncode == LOCKED
            assert refused.stderr.endswith("Unlock it: fastn-p2p vault unlock\n")
        assert owner.daemon.cli("ticket", "alice").returncode == 0
        before = owner.daemon.kill_actor("network")
        owner.daemon.wait_actor("network", before)
        eventually(owner.echo, "alice is online again, on what was signed before")
        assert "locked: fastn-p2p vault unlock" in owner.daemon.cli("status").stdout
    finally:
        assert owner.unlock() == "The vault is unlocked.\n"
    owner.daemon.identity("bob", online=False, echo=False)


def test_crashed_vault_is_unlocked_again_and_a_locked_one_is_not(owner: Owner) -> None:
    assert owner.unlock("--for", "8h").startswith("The vault is unlocked until ")
    until = owner.state().until
    before = owner.daemon.kill_actor("vault")
    before = owner.daemon.wait_actor("vault", before)
    assert owner.state().locked is False
    assert abs(owner.state().until - until) <= 2
    owner.lock()
    owner.daemon.kill_actor("vault")
    owner.daemon.wait_actor("vault", before)
    assert owner.state().locked is True
    assert owner.echo()
    owner.unlock()


def test_daemon_that_starts_without_the_passphrase_is_locked_until_it_comes(owner: Owner) -> None:
    owner.daemon.stop()
    owner.daemon.start()
    assert "the vault is locked: fastn-p2p vault unlock" in "".join(owner.daemon.errors)
    refused = owner.daemon.cli("call", "alice", "Echo", "--data", "{}")
    assert refused.returncode == LOCKED
    assert "fastn-p2p vault unlock" in refused.stderr
    with owner.daemon.client() as client, pytest.raises(VaultLocked):
        client.control(ListPeers())
    shown = owner.daemon.cli("status").stdout
    assert "locked: fastn-p2p vault unlock" in shown
    assert "no identity is online" in shown
    status = owner.daemon.status()
    assert (status.vault, status.identities[0].online) == (VaultInfo(encrypted=True, locked=True), False)
    assert "does not open the vault" in owner.vault("unlock", "--passphrase-file", str(owner.wrong), code=5)
    owner.unlock()
    eventually(owner.is_online, "alice is online")


def test_without_a_terminal_each_command_says_how_to_give_the_passphrase(owner: Owner) -> None:
    for command in ("unlock", "set-passphrase"):
        assert "--passphrase-file" in owner.vault(command, code=2)
    assert "no time" in owner.vault("unlock", "--for", "soon", code=2)
    assert "cannot be read" in owner.vault("unlock", "--passphrase-file", "/nowhere", code=2)


def test_terminal_is_asked_at_the_start_and_by_each_command(owner: Owner) -> None:
    owner.daemon.stop()
    refused = owner.daemon.cli("daemon", "--passphrase-file", str(owner.wrong))
    assert (refused.returncode, "does not open the vault" in refused.stderr) == (5, True)
    with on_terminal(owner.daemon.env, "daemon", columns=200) as tty:
        tty.until(lambda rows: "Passphrase of the vault" in rows[0], "the question")
        tty.type("wrong\n")
        tty.until(lambda rows: any("does not open the vault" in row for row in rows), "the error")
        tty.until(lambda rows: sum("Passphrase of the vault" in row for row in rows) == 2, "the question again")
        tty.type("correct horse\n")
        tty.until(lambda rows: any("1 identity online" in row for row in rows), "ready")
        assert b"correct" not in tty.raw
        owner.lock()
        with on_terminal(owner.daemon.env, "vault", "unlock", columns=200) as other:
            other.until(lambda rows: "Passphrase of the vault" in rows[0], "the question")
            other.type("correct horse\n")
            other.until(lambda rows: any("The vault is unlocked." in row for row in rows), "the answer")
            assert other.ends() == 0
        assert owner.state().locked is False
        owner.daemon.remember()
        tty.type(b"\x03")
        assert tty.ends() == 0
