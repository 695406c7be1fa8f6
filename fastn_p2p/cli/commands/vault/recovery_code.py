from __future__ import annotations

from typing import Annotated

from ....console.options import HomeOption, JsonOption
from ....console.parameters import Option
from ....console.passphrases import PassphraseFileOption
from ....console.present_secret import KeyringOption


def run(
    passphrase_file: PassphraseFileOption = None,
    unchecked: Annotated[
        bool, Option("--unchecked", help="Print it without asking for two of its words, for scripts.")
    ] = False,
    keyring: KeyringOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make a recovery code, in place of the one before: twelve random words for paper.

    It unlocks the vault like a passphrase, and is shown only now. It is stored once you have typed two of its words;
    until then, the one before stays valid.
    """
    from ....console.present_secret import PresentSecret
    from ...vault_slots import add_recovery_code

    add_recovery_code("", PresentSecret(home, passphrase_file, keyring), check=not unchecked, json=json, replace=True)
