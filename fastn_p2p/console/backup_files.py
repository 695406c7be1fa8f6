"""Files of backups: the file to write, and a file that the vault opens."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from .exit_codes import CommandFailed, CommandLineError, ExitCode
from .parameters import Argument, Option

if TYPE_CHECKING:
    from fastn_p2p_actors.backup.contents import BackupContents

_MODE: Final = 0o600

BackupFileArgument = Annotated[Path, Argument(metavar="FILE", help="File of the backup.", show_default=False)]
WithoutPeersOption = Annotated[
    bool, Option("--without-peers", help="Leave out the address book, groups and blocked peers.")
]
WithoutProtocolsOption = Annotated[
    bool, Option("--without-protocols", help="Leave out the identities' protocols with their configs.")
]


class OpenedBackup(NamedTuple):
    token: bytes
    """Name of the backup at the vault; empty if the vault does not keep it."""
    archive: bytes
    """Files without secrets, as ``RestoreBackup`` takes them."""
    contents: BackupContents


def open_backup(home: Path | None, file: Path, passphrase_file: Path | None, *, keep: bool) -> OpenedBackup:
    """Have the vault open a backup, and return what it contains beside keys.

    Args:
        keep: have the vault keep the keys for a restore.

    Raises:
        CommandLineError: the file cannot be read, or there is no passphrase.
        BackupUnusable, WrongBackupPassphrase: it cannot be opened.
        P2PError: the error reply of the vault, or the reason why it did not answer.
    """
    from fastn_p2p_actors.backup.archive import ArchiveError
    from fastn_p2p_actors.backup.contents import BackupContents
    from fastn_p2p_actors.vault.owner_messages import GetVaultStatus, OpenBackup
    from fastn_p2p_client.errors import BackupUnusable, VaultLocked

    from .passphrases import open_passphrase
    from .vault_request import request_vault

    with _existing(file) as source:
        if request_vault(home, GetVaultStatus()).locked and keep:
            raise VaultLocked(what="restoring a backup")
        try:
            with (
                open_passphrase(passphrase_file, "Passphrase of the backup") as passphrase,
                files_in_memory(b"") as files,
            ):
                reply = request_vault(home, OpenBackup(keep), passphrase, source, files)
                archive = _content(files)
            return OpenedBackup(reply.token, archive, BackupContents(archive))
        except (BackupUnusable, ArchiveError) as error:
            reason = error.reason if isinstance(error, BackupUnusable) else str(error)
            raise BackupUnusable(path=str(file), reason=reason) from None


def check_new(file: Path, *, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        CommandLineError: it is a directory, or its directory does not exist.
        CommandFailed: it exists, and ``force`` was not given.
    """
    if file.is_dir():
        raise CommandLineError(f"{file} is a directory: give the name of a file in it")
    if not file.parent.is_dir():
        raise CommandLineError(f"{file.parent} is no directory: create it first")
    if os.path.lexists(file) and not force:
        text = f"{file} exists already. Give another name, or replace it with --force"
        raise CommandFailed(text, ExitCode.EXISTS, "file-exists", path=str(file))


@contextlib.contextmanager
def new_private_file(file: Path, *, force: bool) -> Iterator[int]:
    """Return the descriptor of a new file (mode 0600), which takes its place at the end if nothing was raised.

    Raises:
        StorageFailed: it cannot be written.
        CommandFailed: it exists by now, and ``force`` was not given.
    """
    from fastn_p2p_actors.storage.atomic_files import error_text, sync_directory
    from fastn_p2p_client.errors import StorageFailed

    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise StorageFailed(path=str(file), reason=error_text(error)) from None
    try:
        yield descriptor
        if force:
            temporary.replace(file)
        else:
            os.link(temporary, file)  # unlike a rename, it fails if the file exists
        sync_directory(file.parent)
    except FileExistsError:
        check_new(file, force=force)
        raise
    except OSError as error:
        raise StorageFailed(path=str(file), reason=error_text(error)) from None
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def files_in_memory(content: bytes) -> Iterator[int]:
    """Return the descriptor of a file in memory, which is gone at the end."""
    descriptor = os.memfd_create("fastn-p2p-backup", os.MFD_CLOEXEC)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        yield descriptor
    finally:
        os.close(descriptor)


def parse_renames(option: str, texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Return the pairs of ``OLD=NEW`` texts. Raises CommandLineError."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise CommandLineError(f"{option}: {text!r} has no two names. Give OLD=NEW")
        if old in pairs:
            raise CommandLineError(f"{option}: {old!r} is given twice")
        pairs[old] = new
    return tuple(pairs.items())


@contextlib.contextmanager
def _existing(file: Path) -> Iterator[int]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise CommandLineError(f"{file} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CommandLineError(f"{file} is no regular file: copy the backup to one first")
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
