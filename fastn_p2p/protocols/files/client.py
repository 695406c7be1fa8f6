"""Client of ``FileTransfer`` at one peer, for programs and for the command line."""

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
from .retry import RETRY_TIMEOUT

if TYPE_CHECKING:
    from .sending.offer_manifest import OfferManifest

__all__ = ["PARALLEL", "PROTOCOL", "FilesClient"]

T = TypeVar("T")

PROTOCOL: Final = "FileTransfer"
PARALLEL: Final = 4
"""Files that are transferred at the same time, each on a session of its own, all over one connection."""

_PAGE: Final = 4000
"""Entries of an offer in one reply, which has some 16 MiB with the longest possible paths."""
_TIMEOUT: Final = 30.0
"""Seconds for one request; listing a directory of a million entries takes a few of them."""


class FilesClient:
    """Client for the files that a peer shares, and for its inbox.

    ::

        async with Client() as client:
            files = FilesClient(client, "alice", "bob")
            summary = await files.get(["photos"], Path("~/from-bob").expanduser())

    Every method raises ``FileError`` when the peer refuses the request, and another ``P2PError`` when the call fails.

    Args:
        identity: name of the local identity that calls; None for the only one online.
        peer: a ``PublicKey``, an ID52, a ticket, or a name from the address book.
        instance: the peer's instance of ``FileTransfer``.
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

    # ── listing ──────────────────────────────────────────────────────────────────────────────────

    async def list(self, path: str = "", *, page: int = MAX_PAGE) -> AsyncIterator[DirectoryPage]:
        """Yield the entries of a directory in order of names, a page at a time.

        Entries with unsafe names are left out and counted in ``unnamed``.

        Args:
            path: relative to the shared directory; empty for itself.
            page: entries in one page.

        Raises:
            FileError: ``NotShared``, ``NotFound``, ``NotADirectory``, ``Unreadable``, ``UnsafeName``.
            BadReply: the peer's pages are not in order.
            P2PError: the call failed.
        """
        after = ""
        while True:
            listing = await self.request(ListDirectory(path, after, page), DirectoryPage)
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
        """Return a file or directory, with an empty path.

        Raises:
            FileError: ``NotShared``, ``NotFound``, ``NotADirectory``, ``Unreadable``, ``UnsafeName``.
            P2PError: the call failed.
        """
        return await self.request(Stat(path), Entry)

    async def walk(self, path: str = "") -> AsyncIterator[Entry | Skipped]:
        """Yield a file, or everything below a directory; each directory follows its content.

        Paths are those that the peer sent: check them before using them on this machine.

        Raises:
            FileError: ``NotShared``, ``NotFound``, ``NotAFile``, ``NotADirectory``, ``Unreadable``, ``UnsafeName``,
                ``TooMany``.
            P2PError: the session broke before the end.
        """
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
        retry_timeout: float = RETRY_TIMEOUT,
        parallel: int = PARALLEL,
        alone: bool = False,
    ) -> TransferSummary:
        """Get files and whole directories. Resume where an earlier attempt ended, also one of another process.

        Args:
            paths: files and directories at the peer; each is written under its last component. The empty path stands
                for everything that is shared.
            to: an existing directory.
            force: replace local files that differ.
            hidden: also get entries with hidden names below the paths; without it they are skipped.
            report: called with each event.
            retry_timeout: seconds without progress after which connection errors are no longer retried.
            parallel: files that are transferred at the same time.
            alone: this process does nothing else, so its event loop may wait for the disk for a moment. On a fast disk
                files arrive a few per cent faster.

        Returns:
            Counts of the transfer, including the files that could not be transferred.

        Raises:
            FileError: ``DiskFull``; ``UnsafeName``, ``Collision``: of the paths.
            P2PError: the peer cannot be reached.
        """
        from .receiving.download import Download

        download = Download(
            self,
            to,
            force=force,
            hidden=hidden,
            report=report,
            retry_timeout=retry_timeout,
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
        retry_timeout: float = RETRY_TIMEOUT,
        parallel: int = PARALLEL,
    ) -> TransferSummary:
        """Offer files to the peer, and send them once it accepts. Resume where an earlier attempt ended.

        Args:
            manifest: the files, from ``OfferManifest.scan``.
            wait: seconds to wait until the peer accepts; None for as long as it takes.
            report: called with each event.
            retry_timeout: seconds without progress after which connection errors are no longer retried.
            parallel: files that are transferred at the same time.

        Returns:
            Counts of the transfer, including the files that could not be transferred.

        Raises:
            FileError: ``OfferWaits``: the peer has not accepted in time; the offer remains. ``OfferRejected``,
                ``NotShared``, ``TooLarge``, ``TooMany``, ``UnsafeName``, ``Collision``: the peer refuses the offer.
            P2PError: the peer cannot be reached.
        """
        from .sending.upload import Upload

        return await Upload(
            self, manifest, wait=wait, report=report, retry_timeout=retry_timeout, parallel=parallel
        ).run()

    # ── offers ───────────────────────────────────────────────────────────────────────────────────

    async def offer(self, entries: Sequence[Entry]) -> OfferReply:
        """Offer entries to the peer, and return the id and state of the offer. The same entries are the same offer.

        Raises:
            FileError: ``NotShared``, ``TooLarge``, ``TooMany``, ``UnsafeName``, ``Collision``, ``NotAFile``.
            P2PError: the call failed.
        """
        return await self.request(OfferFiles(list(entries)), OfferReply)

    async def await_offer(self, offer: str, seconds: float = 0.0) -> OfferReply:
        """Return the state of an offer to the peer once it is decided, or after ``seconds``, at most ``MAX_WAIT``.

        Raises:
            FileError: ``OfferUnknown``.
            P2PError: the call failed.
        """
        return await self.request(WaitForDecision(offer, seconds), OfferReply, timeout=seconds + _TIMEOUT)

    async def offers(self) -> Sequence[OfferSummary]:
        """Return all offers in the own inbox. The peer must be the identity's own ID52.

        Raises:
            FileError: ``NotOwner``: the peer is another identity.
            P2PError: the call failed.
        """
        return (await self.request(ListOffers(), OfferList)).offers

    async def contents(self, offer: str, *, page: int = _PAGE) -> AsyncIterator[OfferedEntry]:
        """Yield the entries of an offer in the own inbox, in order of paths.

        Args:
            page: entries in one request.

        Raises:
            FileError: ``OfferUnknown``, ``NotOwner``.
            P2PError: the call failed.
        """
        after = ""
        while True:
            found = await self.request(Contents(offer, after, page), OfferPage)
            for entry in found.entries:
                yield entry
            if not found.more or not found.entries or found.entries[-1].path <= after:
                return
            after = found.entries[-1].path

    async def decide(
        self, offer: str, *, accept: bool, force: bool = False, hidden: bool = False, names: Sequence[str] = ()
    ) -> OfferReply:
        """Accept or reject an offer in the own inbox; return its state.

        Args:
            force: its files replace local files of the same names.
            hidden: also accept hidden, executable and odd names.
            names: of those only these paths, and what is below them.

        Raises:
            FileError: ``OfferUnknown``, ``NotOwner``; ``NotFound``: the offer has no such name to accept.
            P2PError: the call failed.
        """
        return await self.request(DecideOffer(offer, accept, force, hidden, list(names)), OfferReply)

    # ── calls and sessions ───────────────────────────────────────────────────────────────────────

    async def request(self, request: Request, returns: type[T], *, timeout: float = _TIMEOUT) -> T:
        """Send a request, and return the reply as ``returns``. Raises FileError and P2PError.

        Args:
            timeout: seconds.
        """
        try:
            return await self._client.call(
                self._identity, self._peer, PROTOCOL, self._instance, request, returns=returns, timeout=timeout
            )
        except ApplicationError as error:
            raise FileError.of(error) from None

    async def open(self, order: SessionRequest) -> Session:
        """Open a session. Raises FileError and P2PError."""
        try:
            return await self._client.connect(self._identity, self._peer, PROTOCOL, self._instance, order)
        except ApplicationError as error:
            raise FileError.of(error) from None
