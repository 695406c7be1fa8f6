"""Owner of a running daemon whose vault has a passphrase."""

from __future__ import annotations

from pathlib import Path

from fastn_p2p.console.vault_request import request_vault
from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, LockVault, VaultStatus
from fastn_p2p_client.errors import P2PError, VaultLocked
from tests.support.daemons import DEADLINE, Daemon


class Owner:
    """Daemon whose vault has a passphrase, and files with that passphrase and with another one."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.daemon = Daemon(folder / "home", folder / "hosts", **env)
        self.right, self.wrong = folder / "right", folder / "wrong"
        self.right.write_text("correct horse\nsecond line")
        self.wrong.write_text("battery staple\n")

    def vault(self, *arguments: str, code: int = 0) -> str:
        """Run a command of the group, and return what it has written."""
        ended = self.daemon.cli("vault", *arguments)
        assert ended.returncode == code, ended.stderr + self.daemon.report()
        return ended.stdout + ended.stderr

    def output(self, *arguments: str) -> str:
        """Run a command of the group, and return its standard output."""
        ended = self.daemon.cli("vault", *arguments)
        assert ended.returncode == 0, ended.stderr + self.daemon.report()
        return ended.stdout

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
