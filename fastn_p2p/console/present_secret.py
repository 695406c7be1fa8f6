"""Secret of a slot that the vault has: with it, a command shows that its user may change the vault."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from .exit_codes import CommandLineError
from .parameters import Option
from .passphrases import open_passphrase

if TYPE_CHECKING:
    from fastn_p2p_actors.vault.owner_messages import VaultStatus
    from fastn_p2p_actors.vault.passphrase import Secret

PRESENT: Final = "Passphrase of the vault, or recovery code"
"""Question for the secret of any slot."""

KeyringOption = Annotated[
    bool,
    Option("--keyring", help="Use the key in the keyring of the desktop, instead of a present passphrase."),
]


@dataclass(frozen=True, slots=True)
class PresentSecret:
    """Choice of the user: a file, the keyring, or else the terminal."""

    home: Path | None
    file: Path | None
    keyring: bool = False

    @contextlib.contextmanager
    def open(self, status: VaultStatus, prompt: str = PRESENT) -> Iterator[int]:
        """Return a descriptor that delivers the secret.

        Raises:
            CommandLineError: the file or the keyring has none, there is no terminal, or nothing was typed.
        """
        if not self.keyring:
            with open_passphrase(self.file, prompt) as descriptor:
                yield descriptor
            return
        if self.file is not None:
            raise CommandLineError("a file and --keyring are two ways to give one secret: choose one")
        from fastn_p2p_actors.vault.owner_messages import SlotKind
        from fastn_p2p_client.home import Home

        from .keyring_keys import keyring_key

        names = [slot.name for slot in status.slots if slot.kind == SlotKind.KEYRING]
        if not names:
            raise CommandLineError("the vault has no slot for the keyring. Add one: fastn-p2p vault add-slot keyring")
        with keyring_key(Home.find(self.home), names[0]) as descriptor:
            yield descriptor

    @contextlib.contextmanager
    def hold(self, status: VaultStatus) -> Iterator[Secret]:
        """Return the secret in locked memory, for a command that needs it several times: see ``open_pipe``.

        Raises:
            CommandLineError: as for ``open``.
            InvalidPassphrase: it is empty or too long.
        """
        from fastn_p2p_actors.vault.passphrase import Secret

        with self.open(status) as descriptor, Secret() as secret:
            secret.read(descriptor)
            yield secret
