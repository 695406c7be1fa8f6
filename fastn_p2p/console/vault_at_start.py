"""Passphrase of the vault at the start of the daemon: from a file, or from the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import DaemonAlreadyRunning, VaultNotEncrypted, WrongPassphrase
from fastn_p2p_client.home import Home

from .confirmation import can_confirm
from .exit_codes import CommandLineError
from .output import write_message
from .passphrases import open_passphrase

ATTEMPTS: Final = 3
"""Passphrases that are asked for before the daemon gives up."""


def unlock_at_start(home: Home, file: Path | None) -> int | None:
    """Return the descriptor of the page with the vault's master key; None if the vault starts locked or unencrypted.

    Raises:
        CommandLineError: the file cannot be read.
        DaemonAlreadyRunning: a daemon runs already, so no passphrase is asked for.
        VaultNotEncrypted: there is a file, but nothing to unlock.
        P2PError: the passphrase is wrong, or cannot be tried.
    """
    if not home.vault_slots.exists():
        if file is not None:
            raise VaultNotEncrypted
        return None
    if file is None and not _is_foreground():
        return None
    running = home.daemon_pid()
    if running is not None:
        raise DaemonAlreadyRunning(home=str(home.path), pid=running)
    home.check()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _open_page(home, file)
        except WrongPassphrase as error:
            if file is not None or attempt == ATTEMPTS:
                raise
            write_message(f"fastn-p2p: {error.template.partition('.')[0]}")
        except CommandLineError:
            if file is not None:
                raise
            return None  # the user pressed Enter
    return None


def _open_page(home: Home, file: Path | None) -> int:
    from fastn_p2p_actors.vault.start_unlock import open_vault_page

    with open_passphrase(file, "Passphrase of the vault (Enter to start locked)") as descriptor:
        return open_vault_page(home, descriptor)


def _is_foreground() -> bool:
    """Return whether there is a terminal, and this process may read from it."""
    try:
        return can_confirm() and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
