from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption
from ....console.parameters import Option
from ....console.passphrases import PassphraseFileOption
from ....console.present_secret import KeyringOption


def run(
    lasting: Annotated[
        str,
        Option("--for", metavar="TIME", help="Lock it again after this time: 30m, 8h, 7d.", show_default=False),
    ] = "",
    passphrase_file: PassphraseFileOption = None,
    keyring: KeyringOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Unlock the vault with a passphrase, a recovery code, or the key of another slot.

    It stays unlocked until `vault lock`, or until the daemon stops. With --for it locks itself after that time. For a
    vault that is unlocked, this sets or removes that time. After three wrong passphrases in a row, each further one
    must wait, up to five minutes.
    """
    from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, UnlockVault
    from fastn_p2p_client.errors import VaultNotEncrypted

    from ....console.output import put_json, write_message
    from ....console.present_secret import PresentSecret
    from ....console.vault_request import request_vault
    from ...vault_text import parse_seconds, status_record, vault_state

    seconds = parse_seconds(lasting)
    before = request_vault(home, GetVaultStatus())
    if not before.encrypted:
        raise VaultNotEncrypted
    with PresentSecret(home, passphrase_file, keyring).open(before) as descriptor:
        status = request_vault(home, UnlockVault(seconds), descriptor)
    write_message(f"The vault is {vault_state(encrypted=True, locked=status.locked, until=status.until)}.")
    if json:
        put_json(status_record(status))
