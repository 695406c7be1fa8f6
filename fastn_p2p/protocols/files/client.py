"""``FileTransfer`` at one peer: ``FilesClient`` is what programs use, and the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError, BadReply
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import DEFAULT_INSTANCE
from fastn_p2p_client.session.session import Session
from fastn_p2p_client.tickets import Ticket

from .._shared.path_names import is_safe
from .errors import FileError
from .events import OnEvent, TransferSummary, ignore_events
from .file_system.walk import receive_walk
from .messages import (
    MAX_PAGE,
    Contents,
    DecideOffer,
    DirectoryPage,
    Entry,
    ListDirectory,
    ListOffers,
    OfferedEntry,
    OfferFiles,
    OfferList,
    OfferPage,
    OfferReply,
    OfferSummary,
    Request,
    SessionRequest,
    Skipped,
    Stat,
    WaitForDecision,
    WalkDirectory,
)
from .retry import PATIENCE

if TYPE_CHECKING:
    from .sending.offer_manifest import OfferManifest

__all__ = ["PARALLEL", "PROTOCOL", "FilesClient"]

T = TypeVar("T")

PROTOCOL: Final = "FileTransfer"
PARALLEL: Final = 4
"""Files that move at the same time, each on a session of its own, all over one connection."""

_PAGE: Final = 4000
"""Files of an offer in one answer, which is some 16 MiB with the longest paths there can be."""
_TIMEOUT: Final = 30.0
"""Seconds for one request: a directory of a million entries takes some of them to look through."""


class FilesClient:
    """What a peer shares, and its inbox.

    ::

        async with Client() as client:
            files = FilesClient(client, "alice", "bob")
            tally = await files.get(["photos"], Path("~/from-bob").expanduser())

    Every method raises ``FileError`` for what the peer refuses, and ``P2PError`` for everything else.

    Args:
        identity: name of the local identity that asks; None for the only one online.
        peer: a ``PublicKey``, an ID52, a ticket, or a name from the address book.
    """

    def __init__(
        self,
        client: Client,
        identity: str | None,
        peer: str | PublicKey | Ticket,
        instance: str = DEFAULT_INSTANCE,
    ) -> None:
        self._client = client
        self._identity = identity
        self._peer = peer
        self._instance = instance

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def list(self, path: str = "", *, page: int = MAX_PAGE) -> AsyncIterator[DirectoryPage]:
        """What is in a directory, in order of names, a page at a time. Unsafe names are counted, not shown."""
        after = ""
        while True:
            listing = await self.ask(ListDirectory(path, after, page), DirectoryPage)
            names = [entry.path for entry in listing.entries]
            if names != sorted(names) or (names and names[0] <= after):
                raise BadReply(protocol=PROTOCOL, reason="a listing is not in order of names")
            entries = [entry for entry in listing.entries if is_safe(entry.path)]
            unsafe = len(names) - len(entries)
            yield DirectoryPage(entries, listing.more, listing.unnamed + unsafe, listing.skipped)
            if not listing.more or not names:
                return
            after = names[-1]

    async def stat(self, path: str = "") -> Entry:
        """One file or directory."""
        return await self.ask(Stat(path), Entry)

    async def walk(self, path: str = "") -> AsyncIterator[Entry | Skipped]:
        """A file, or everything below a directory, each directory after what is in it. Names are as the peer says."""
        async with await self.open(WalkDirectory(path)) as session:
            async for found in receive_walk(session):
                yield found

    # ── getting and putting ──────────────────────────────────────────────────────────────────────

    async def get(
        self,
        paths: Sequence[str],
        to: Path,
        *,
        force: bool = False,
        hidden: bool = False,
        report: OnEvent = ignore_events,
        patience: float = PATIENCE,
        parallel: int = PARALLEL,
        alone: bool = False,
    ) -> TransferSummary:
        """Gets files and whole directories; goes on where an earlier attempt has ended, also in another process.

        Args:
            paths: at the peer; each ends up under its last part. The empty path is all that is shared.
            to: an existing directory.
            force: replace files that are there and are others.
            hidden: get also what is below the paths and has a hidden name. Without it that is left out.
            report: is told what happens.
            patience: seconds without progress until a broken way is given up.
            alone: this process does nothing else, and its event loop may wait for the disk for a moment: where that is
                quick, files come a few per cent faster.

        Returns:
            What became of them: also files that could not be transferred are in it.

        Raises:
            FileError: ``DiskFull``.
        """
        from .receiving.download import Download

        download = Download(
            self,
            to,
            force=force,
            hidden=hidden,
            report=report,
            patience=patience,
            parallel=parallel,
            alone=alone,
        )
        return await download.run(paths)

    async def put(
        self,
        manifest: OfferManifest,
        *,
        wait: float | None = None,
        report: OnEvent = ignore_events,
        patience: float = PATIENCE,
        parallel: int = PARALLEL,
    ) -> TransferSummary:
        """Offers files to the peer, and sends them once they are accepted; goes on where an earlier attempt has ended.

        Args:
            wait: seconds until somebody has accepted; None for as long as it takes.

        Raises:
            FileError: ``OfferWaits``: nobody has accepted in time; the offer stands. ``OfferRejected``, ``NotShared``,
                ``TooLarge``, ``TooMany``, ``UnsafeName``, ``Collision``: the peer does not take it.
        """
        from .sending.upload import Upload

        return await Upload(self, manifest, wait=wait, report=report, patience=patience, parallel=parallel).run()

    # ── offers ───────────────────────────────────────────────────────────────────────────────────

    async def offer(self, entries: Sequence[Entry]) -> OfferReply:
        """Says what one would send. The same entries are the same offer."""
        return await self.ask(OfferFiles(list(entries)), OfferReply)

    async def await_offer(self, offer: str, seconds: float = 0.0) -> OfferReply:
        """How an offer of one's own stands, once it is decided or the time (at most ``MAX_WAIT``) is over."""
        return await self.ask(WaitForDecision(offer, seconds), OfferReply, timeout=seconds + _TIMEOUT)

    async def offers(self) -> Sequence[OfferSummary]:
        """Everything that was offered to oneself: works with one's own ID52 as the peer only."""
        return (await self.ask(ListOffers(), OfferList)).offers

    async def contents(self, offer: str, *, page: int = _PAGE) -> AsyncIterator[OfferedEntry]:
        """Everything in an offer that was made to oneself, in order of paths."""
        after = ""
        while True:
            found = await self.ask(Contents(offer, after, page), OfferPage)
            for entry in found.entries:
                yield entry
            if not found.more or not found.entries or found.entries[-1].path <= after:
                return
            after = found.entries[-1].path

    async def decide(
        self, offer: str, *, accept: bool, force: bool = False, hidden: bool = False, names: Sequence[str] = ()
    ) -> OfferReply:
        """Accept or reject what was offered to oneself.

        Args:
            force: its files replace others of their names.
            hidden: take also its hidden, executable and odd names.
            names: of those only these paths, and what is below them.
        """
        return await self.ask(DecideOffer(offer, accept, force, hidden, list(names)), OfferReply)

    # ── the two ways to the peer ─────────────────────────────────────────────────────────────────

    async def ask(self, request: Request, returns: type[T], *, timeout: float = _TIMEOUT) -> T:
        """One call."""
        try:
            return await self._client.call(
                self._identity, self._peer, PROTOCOL, self._instance, request, returns=returns, timeout=timeout
            )
        except ApplicationError as error:
            raise FileError.of(error) from None

    async def open(self, order: SessionRequest) -> Session:
        """One session."""
        try:
            return await self._client.connect(self._identity, self._peer, PROTOCOL, self._instance, order)
        except ApplicationError as error:
            raise FileError.of(error) from None
