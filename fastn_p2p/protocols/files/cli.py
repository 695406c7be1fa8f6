"""What the commands of ``fastn-p2p files`` share: the way to a peer's or one's own files, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.owner import find_owner

from ...console.connecting_notice import connecting
from ...console.exit_codes import (
    Exit,
    Misused,
)
from .client import Files
from .errors import FileError
from .tally import Tally

__all__ = ["exit_code", "exit_code_of", "make_target", "refused", "with_files", "with_own_files"]

T = TypeVar("T")

_EXITS: Final[dict[str, Exit]] = {
    "Exists": Exit.EXISTS,
    "DiskFull": Exit.STORAGE,
    "Unwritable": Exit.STORAGE,
    "Busy": Exit.OVERLOADED,
    "TooMany": Exit.OVERLOADED,
    "UnsafeName": Exit.HANDLER,
    "Collision": Exit.HANDLER,
    "Corrupt": Exit.HANDLER,
    "OfferWaits": Exit.TIMEOUT,
    "OfferUnknown": Exit.NOT_FOUND,
    "NotAccepted": Exit.DENIED,
    "NotOwner": Exit.DENIED,
}


def exit_code(kind: str) -> Exit:
    """How a command ends after a failure of that kind: what is not in the table is the peer's answer."""
    return _EXITS.get(kind, Exit.APPLICATION)


def exit_code_of(tally: Tally) -> Exit:
    """Return how a transfer ends: with the first failure, if there was one, or because something was left out."""
    if tally.failures:
        return exit_code(tally.failures[0].kind)
    return Exit.PARTIAL if tally.omitted else Exit.OK


def make_target(directory: Path, option: str) -> None:
    """Make the directory that an option names, unless it is there.

    Raises:
        Misused: it cannot be made, or is no directory; says why.
    """
    try:
        directory.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise Misused(f"{option}: there is no directory {str(directory.parent)!r}") from None
    except FileExistsError:
        raise Misused(f"{option}: {str(directory)!r} is not a directory") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Misused(f"{option}: the directory {str(directory)!r} cannot be made: {reason}") from None


def with_files(
    home: Path | None,
    identity: str | None,
    peer: str,
    instance: str,
    work: Callable[[Files], Awaitable[T]],
    *,
    quiet: bool = False,
) -> T:
    """``work`` with a peer's files, in an event loop of its own. Raises what it raises.

    Unless ``quiet``, people are told when the peer is not reached at once.
    """

    async def conversation() -> T:
        async with Client(home, program="fastn-p2p files") as client:
            done = work(Files(client, identity, peer, instance))
            return await done if quiet else await connecting(client, identity, peer, done)

    import uvloop  # where bytes by the gigabyte pass, it takes half of what asyncio's own loop takes

    from fastn_p2p_actors.runtime.process_setup import keep_heap

    keep_heap()
    return uvloop.run(conversation())


def with_own_files(home: Path | None, identity: str | None, instance: str, work: Callable[[Files], Awaitable[T]]) -> T:
    """``work`` with the files of an identity of this daemon, as that identity: about its inbox nobody else may ask.

    Raises:
        IdentityNotFound, IdentityAmbiguous, NoIdentityOnline: it is not clear whose.
    """

    async def conversation() -> T:
        async with Client(home, program="fastn-p2p files") as client:
            name, key = await find_owner(client, identity)
            return await work(Files(client, name, key, instance))

    return asyncio.run(conversation())


def refused(error: FileError) -> Exit:
    """Says why a command has failed as a whole, and how it ends."""
    from ...console.output import say

    say(f"fastn-p2p: {error}")
    return exit_code(error.kind)
