"""Parts that the commands ``fastn-p2p files`` share: access to a peer's or the owner's files, and exit codes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from fastn_p2p_client.client import Client

from ...console.connecting_notice import connecting
from ...console.exit_codes import CommandFailed, ExitCode
from ...console.home_notice import note_home
from ...console.output import write_message
from .client import PROTOCOL, FilesClient
from .errors import FileError
from .events import TransferSummary
from .progress import print_summary

T = TypeVar("T")

_EXITS: Final[dict[str, ExitCode]] = {
    "Exists": ExitCode.EXISTS,
    "DiskFull": ExitCode.STORAGE,
    "Unwritable": ExitCode.STORAGE,
    "Busy": ExitCode.OVERLOADED,
    "TooMany": ExitCode.OVERLOADED,
    "UnsafeName": ExitCode.HANDLER,
    "Collision": ExitCode.HANDLER,
    "Corrupt": ExitCode.HANDLER,
    "OfferWaits": ExitCode.TIMEOUT,
    "OfferUnknown": ExitCode.NOT_FOUND,
    "NotAccepted": ExitCode.DENIED,
    "NotOwner": ExitCode.DENIED,
}


def exit_code(kind: str) -> ExitCode:
    """Return the exit code for an error of that kind. Kinds that are not in the table are errors of the peer."""
    return _EXITS.get(kind, ExitCode.APPLICATION)


def exit_code_of(summary: TransferSummary) -> ExitCode:
    """Return the exit code of a transfer: by the first failure, or ``PARTIAL`` if an entry was skipped."""
    if summary.failures:
        return exit_code(summary.failures[0].kind)
    return ExitCode.PARTIAL if summary.omitted else ExitCode.OK


def with_files(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    work: Callable[[FilesClient], Awaitable[T]],
    *,
    quiet: bool = False,
) -> T:
    """Run ``work`` with a peer's files, in an event loop of its own. Raise the error that it raises.

    Args:
        quiet: print nothing while the peer is not reached yet.

    Raises:
        CommandFailed: ``work`` raised a ``FileError``.
    """

    async def run() -> T:
        async with Client(home, program="fastn-p2p files") as client:
            done = work(FilesClient(client, identity, peer, instance))
            return await done if quiet else await connecting(client, identity, peer, done)

    import uvloop  # takes half the time of asyncio's own loop when gigabytes pass

    from fastn_p2p_actors.runtime.process_setup import tune_malloc

    tune_malloc()
    with _file_errors():
        return uvloop.run(run())


def transfer(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    work: Callable[[FilesClient], Awaitable[TransferSummary]],
    *,
    json: bool,
) -> NoReturn:
    """Run ``work`` with a peer's files, print the summary that it returns, and end the command by its exit code.

    Raises:
        CommandFailed: ``work`` raised a ``FileError``.
        SystemExit: with the exit code of the transfer.
    """
    begun = time.monotonic()
    try:
        summary = with_files(home, identity, peer, instance, work, quiet=json)
    except KeyboardInterrupt:
        write_message("Interrupted. Run the same command again to resume.")
        raise
    print_summary(summary, time.monotonic() - begun, json=json)
    raise SystemExit(exit_code_of(summary))


def with_own_files(
    home: Path | None, identity: str | None, instance: str, work: Callable[[FilesClient], Awaitable[T]]
) -> T:
    """Run ``work`` with the files of a local identity, called as that identity: only it may access its inbox.

    Raises:
        CommandFailed: ``work`` raised a ``FileError``.
        IdentityNotFound, IdentityAmbiguous, NoIdentityOnline: the identity does not exist, or must be named.
    """

    async def run() -> T:
        async with Client(home, program="fastn-p2p files") as client:
            name, key = await client.resolve_identity(identity)
            done = await work(FilesClient(client, name, key, instance))
            await note_home(client, name, PROTOCOL, instance)
            return done

    with _file_errors():
        return asyncio.run(run())


def failure(error: FileError, hint: str = "") -> CommandFailed:
    """Return the error of a command in which the transfer of files has failed.

    Args:
        hint: a further sentence for its message.
    """
    return CommandFailed(f"{error}{hint}", exit_code(error.kind), "application-error", kind=error.kind)


@contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except FileError as error:
        raise failure(error) from None
