from __future__ import annotations

from ....console.options import HomeOption


def run(home: HomeOption = None) -> None:
    """Lock the vault: wipe the keys from memory until the passphrase is given again.

    Identities that are online stay online for up to 24 hours, by delegations that were signed before. Nothing can be
    created, deleted or brought online.
    """
    from fastn_p2p_actors.vault.owner_messages import LockVault

    from ....console.output import write_message
    from ....console.vault_request import request_vault

    request_vault(home, LockVault())
    write_message("Locked the vault. Identities stay online for up to 24 hours. Unlock it: fastn-p2p vault unlock")
