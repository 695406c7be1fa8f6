from __future__ import annotations

from typing import Annotated

from fastn_p2p_actors.vault.owner_messages import SlotKind

from ....console.options import HomeOption, JsonOption
from ....console.parameters import Argument, Option
from ....console.passphrases import CurrentPassphraseFileOption, PassphraseFileOption
from ....console.present_secret import KeyringOption


def run(
    kind: Annotated[SlotKind, Argument(metavar="KIND", help="passphrase, recovery-code, credential or keyring.")],
    name: Annotated[
        str, Option("--name", metavar="NAME", help="Name of the slot. By default its kind.", show_default=False)
    ] = "",
    passphrase_file: PassphraseFileOption = None,
    current_passphrase_file: CurrentPassphraseFileOption = None,
    unchecked: Annotated[
        bool,
        Option("--unchecked", help="Print a recovery code without asking for two of its words, for scripts."),
    ] = False,
    keyring: KeyringOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Add a slot: another way to unlock the vault. No key file changes.

    passphrase: --passphrase-file is the new one. recovery-code: twelve random words for paper. credential: a random key
    for systemd, on standard output. keyring: a random key that the desktop keeps. Each needs a passphrase or recovery
    code that the vault has already.
    """
    from ....console.exit_codes import CommandLineError
    from ....console.present_secret import PresentSecret
    from ...vault_slots import add_credential, add_keyring, add_passphrase, add_recovery_code

    if unchecked and kind is not SlotKind.RECOVERY_CODE:
        raise CommandLineError("--unchecked is for a recovery code only. Leave it out")
    if kind is SlotKind.PASSPHRASE:
        add_passphrase(name, passphrase_file, PresentSecret(home, current_passphrase_file, keyring), json=json)
        return
    present = PresentSecret(home, current_passphrase_file or passphrase_file, keyring)
    if kind is SlotKind.RECOVERY_CODE:
        add_recovery_code(name, present, check=not unchecked, json=json)
    elif kind is SlotKind.CREDENTIAL:
        add_credential(name, present, json=json)
    else:
        add_keyring(name, present, json=json)
