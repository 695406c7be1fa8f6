from __future__ import annotations

import contextlib

from ....console.options import HomeOption, JsonOption
from ....console.passphrases import CurrentPassphraseFileOption, PassphraseFileOption
from ....console.present_secret import KeyringOption


def run(
    passphrase_file: PassphraseFileOption = None,
    current_passphrase_file: CurrentPassphraseFileOption = None,
    keyring: KeyringOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Set the passphrase that encrypts the keys, or change it.

    The first time, every key file is encrypted, and its old content is overwritten and deleted. Copies in backups and
    snapshots stay as they are. Without the passphrase the identities are lost, unless there is another slot. To change
    the passphrase, the present one is needed, or a recovery code; --passphrase-file is the new one.
    """
    from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, SetPassphrase
    from fastn_p2p_client.errors import VaultNotEncrypted

    from ....console.output import put_json, write_message
    from ....console.passphrases import open_passphrase
    from ....console.present_secret import PresentSecret
    from ....console.vault_request import request_vault
    from ...vault_text import encrypted_text, status_record

    before = request_vault(home, GetVaultStatus())
    if current_passphrase_file is not None and not before.encrypted:
        raise VaultNotEncrypted
    with contextlib.ExitStack() as stack:
        present = PresentSecret(home, current_passphrase_file, keyring)
        old = [stack.enter_context(present.open(before))] if before.encrypted else []
        new = stack.enter_context(open_passphrase(passphrase_file, "New passphrase", repeat=True))
        status = request_vault(home, SetPassphrase(), new, *old)
    write_message("Changed the passphrase." if before.encrypted else encrypted_text(status))
    if json:
        put_json(status_record(status))
