from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption
from ....console.parameters import Argument, Option
from ....console.passphrases import PassphraseFileOption
from ....console.present_secret import KeyringOption


def run(
    slot: Annotated[
        str,
        Argument(metavar="SLOT", help="Name of the slot, as vault status lists it."),
    ],
    passphrase_file: PassphraseFileOption = None,
    decrypt: Annotated[
        bool, Option("--decrypt", help="Remove the last slot, and have the keys on disk in the clear again.")
    ] = False,
    keyring: KeyringOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove a slot: a way to unlock the vault. No key file changes.

    It takes the passphrase or recovery code of another slot, so the vault can still be opened afterwards. The last slot
    stays, unless --decrypt says what becomes of the keys; that takes its own passphrase.
    """
    from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, RemoveSlot, SlotKind
    from fastn_p2p_client.errors import LastSlot, SlotNotFound, VaultNotEncrypted
    from fastn_p2p_client.home import Home

    from ....console.exit_codes import CommandLineError
    from ....console.keyring_keys import delete_keyring_key
    from ....console.output import put_json, write_message
    from ....console.present_secret import PresentSecret
    from ....console.vault_request import request_vault
    from ...vault_text import status_record

    before = request_vault(home, GetVaultStatus())
    if not before.encrypted:
        raise VaultNotEncrypted
    kinds = {each.name: each.kind for each in before.slots}
    if slot not in kinds:
        raise SlotNotFound(slot=slot)
    is_last = len(kinds) == 1
    if is_last and not decrypt:
        raise LastSlot(slot=slot)
    prompt = f"Secret of the slot {slot}" if is_last else "Passphrase or recovery code of another slot"
    with PresentSecret(home, passphrase_file, keyring).open(before, prompt) as descriptor:
        status = request_vault(home, RemoveSlot(slot, decrypt), descriptor)
    if kinds[slot] == SlotKind.KEYRING:
        try:
            delete_keyring_key(Home.find(home), slot)
        except CommandLineError as error:
            write_message(f"Its key is still in the keyring, and opens nothing: {error}")
    in_the_clear = "" if status.encrypted else " The keys on disk are in the clear."
    write_message(f"Removed the slot {slot}.{in_the_clear}")
    if json:
        put_json(status_record(status))
