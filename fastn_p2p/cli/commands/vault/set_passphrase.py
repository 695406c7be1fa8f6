from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from ....console.options import HomeOption
from ....console.passphrases import PassphraseFileOption


def run(
    passphrase_file: PassphraseFileOption = None,
    current_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--current-passphrase-file",
            metavar="PATH",
            help="Read the present passphrase from the first line of this file, if there is one.",
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Set the passphrase that encrypts the keys, or change it.

    The first time, every key file is encrypted, and its old content is overwritten and deleted. Copies in backups and
    snapshots stay as they are. Without the passphrase the identities are lost: nobody can recover it. To change the
    passphrase, the present one is needed; --passphrase-file is the new one.
    """
    from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, SetPassphrase
    from fastn_p2p_client.errors import VaultNotEncrypted

    from ....console.formatting import format_count
    from ....console.output import write_message
    from ....console.passphrases import open_passphrase
    from ....console.vault_request import request_vault

    before = request_vault(home, GetVaultStatus())
    if current_passphrase_file is not None and not before.encrypted:
        raise VaultNotEncrypted
    with contextlib.ExitStack() as stack:
        present = []
        if before.encrypted:
            present = [stack.enter_context(open_passphrase(current_passphrase_file, "Present passphrase"))]
        new = stack.enter_context(open_passphrase(passphrase_file, "New passphrase", repeat=True))
        status = request_vault(home, SetPassphrase(), new, *present)
    if before.encrypted:
        write_message("Changed the passphrase.")
    else:
        keys = format_count(status.identities + 1, "key")  # and the transport key
        write_message(f"Encrypted {keys}. Keep the passphrase: without it they are lost.")
