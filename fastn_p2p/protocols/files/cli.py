"""What the commands of ``fastn-p2p files`` share: the way to a peer's or one's own files, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from fastn_p2p_client.client import Client

from ...console.connecting_notice import connecting
from ...console.exit_codes import (
    ExitCode,
)
from .client import FilesClient
from .errors import FileError
from .events import TransferSummary

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
    """How a command ends after a failure of that kind: what is not in the table is the peer's answer."""
    return _EXITS.get(kind, ExitCode.APPLICATION)


def exit_code_of(tally: TransferSummary) -> ExitCode:
    """Return how a transfer ends: with the first failure, if there was one, or because something was left out."""
    if tally.failures:
        return exit_code(tally.failures[0].kind)
    return ExitCode.PARTIAL if tally.omitted else ExitCode.OK


def with_files(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    work: Callable[[FilesClient], Awaitable[T]],
    *,
    quiet: bool = False,
) -> T:
    """``work`` with a peer's files, in an event loop of its own. Raises what it raises.

    Unless ``quiet``, people are told when the peer is not reached at once.
    """

    async def conversation() -> T:
        async with Client(home, program="fastn-p2p files") as client:
            done = work(FilesClient(client, identity, peer, instance))
            return await done if quiet else await connecting(client, identity, peer, done)

    import uvloop  # where bytes by the gigabyte pass, it takes half of what asyncio's own loop takes

    from fastn_p2p_actors.runtime.process_setup import tune_malloc

    tune_malloc()
    return uvloop.run(conversation())


def with_own_files(
    home: Path | None, identity: str | None, instance: str, work: Callable[[FilesClient], Awaitable[T]]
) -> T:
    """``work`` with the files of an identity of this daemon, as that identity: about its inbox nobody else may ask.

    Raises:
        IdentityNotFound, IdentityAmbiguous, NoIdentityOnline: it is not clear whose.
    """

    async def conversation() -> T:
        async with Client(home, program="fastn-p2p files") as client:
            name, key = await client.resolve_identity(identity)
            return await work(FilesClient(client, name, key, instance))

    return asyncio.run(conversation())


def report_error(error: FileError) -> ExitCode:
    """Says why a command has failed as a whole, and how it ends."""
    from ...console.output import write_message

    write_message(f"fastn-p2p: {error}")
    return exit_code(error.kind)
