"""Secret of the vault at the start of the daemon: from a file, a credential of systemd, the keyring or the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from fastn_p2p_client.errors import DaemonAlreadyRunning, P2PError, VaultNotEncrypted, WrongPassphrase
from fastn_p2p_client.home import Home

from .confirmation import can_confirm
from .exit_codes import CommandLineError
from .output import write_problem
from .passphrases import open_passphrase
from .present_secret import PRESENT

ATTEMPTS: Final = 3
"""Passphrases that are asked for before the daemon gives up."""
CREDENTIAL: Final = "fastn-p2p-vault"
"""Name of the credential, as in ``LoadCredentialEncrypted=`` of the unit."""
_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"


def unlock_at_start(home: Home, file: Path | None) -> int | None:
    """Return the descriptor of the page with the vault's master key; None if the vault starts locked or unencrypted.

    Raises:
        CommandLineError: the file cannot be read.
        DaemonAlreadyRunning: a daemon runs already, so no passphrase is asked for.
        HomeUnusable: the home or the file with the slots cannot be used.
        VaultNotEncrypted: there is a file, but nothing to unlock.
        P2PError: the passphrase is wrong, or cannot be tried.
    """
    if not home.vault_slots.exists():
        if file is not None:
            raise VaultNotEncrypted
        return None
    running = home.daemon_pid()
    if running is not None:
        raise DaemonAlreadyRunning(home=str(home.path), pid=running)
    home.check()
    if file is not None:
        return _open_page(home, file)
    page = _open_by_machine(home)
    if page is None and _is_foreground():
        page = _open_prompted(home)
    return page


def _open_by_machine(home: Home) -> int | None:
    """Return the page if a credential of systemd or the keyring has the key of a slot. Say why not if it should."""
    from fastn_p2p_actors.vault.owner_messages import SlotKind
    from fastn_p2p_actors.vault.start_unlock import open_vault_page, slots_of_kind

    sources: list[tuple[str, AbstractContextManager[int]]] = []
    folder = os.environ.get(_DIRECTORY)
    if folder and slots_of_kind(home, SlotKind.CREDENTIAL):
        sources.append((f"the credential {CREDENTIAL}", _credential(Path(folder) / CREDENTIAL)))
    for name in slots_of_kind(home, SlotKind.KEYRING):
        from .keyring_keys import START_SECONDS, keyring_key

        sources.append(("the keyring", keyring_key(home, name, START_SECONDS)))
    for source, opened in sources:
        try:
            with opened as descriptor:
                return open_vault_page(home, descriptor, by_machine=True)
        except WrongPassphrase:
            write_problem(f"{source} has another key than the vault: it does not open it")
        except (CommandLineError, P2PError) as error:
            write_problem(f"{source} does not open the vault: {error}")
    return None


@contextmanager
def _credential(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandLineError(f"{path} cannot be read: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_prompted(home: Home) -> int | None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _open_page(home, None)
        except WrongPassphrase as error:
            if attempt == ATTEMPTS:
                raise
            write_problem(f"{error.template.partition('.')[0]}")
        except CommandLineError:
            return None  # the user pressed Enter
    return None


def _open_page(home: Home, file: Path | None) -> int:
    from fastn_p2p_actors.vault.start_unlock import open_vault_page

    with open_passphrase(file, f"{PRESENT} (Enter to start locked)") as descriptor:
        return open_vault_page(home, descriptor)


def _is_foreground() -> bool:
    """Return whether there is a terminal, and this process may read from it."""
    try:
        return can_confirm() and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
