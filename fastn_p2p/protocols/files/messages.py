"""Messages of the protocol ``FileTransfer``.

``Request`` lists the calls, ``SessionRequest`` the openings of a session, and ``TransferMessage`` the messages inside
a session, each in a frame of its own (see ``framing``).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from .._shared.name_risks import Risk
from .digest import DIGEST_SIZE

MAX_PAGE: Final = 10_000
"""Entries in one page of a listing."""
MAX_OFFER: Final = 65_536
"""Files and directories in one offer: it travels as one request."""
MAX_BATCH: Final = 500
"""Entries, and skipped ones, in one message of a walk: some 2 MiB with the longest possible paths."""
MAX_WAIT: Final = 30.0
"""Seconds that one ``WaitForDecision`` may take."""
FARTHEST_TIME: Final = 1 << 62
"""Nanoseconds before and after 1970 (until the year 2116) that ``mtime_ns`` can hold; the rest is ``mtime_rest``."""
MAX_SIZE: Final = (1 << 63) - 1
"""Bytes of a file; also the largest count of bytes of several files."""
MAX_NAMED: Final = 100
"""Skipped entries that one listing names; further ones are only counted."""
MAX_ACCEPTED: Final = 10_000
"""Names that one ``DecideOffer`` accepts."""

_Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]
_Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]
_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""Nanoseconds since 1970, UTC. Values that are sent lie within ``FARTHEST_TIME`` of 1970: older daemons refuse more."""
_Mode: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0o777)]
_Digest: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]

OfferState: TypeAlias = Literal["waiting", "accepted", "rejected", "finished"]
"""State of an offer: not decided; its files may be sent; they may not; all of them have arrived."""


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A file or directory."""

    path: _Text
    """Relative to the requested path, with ``/``; empty for the requested file or directory itself."""
    kind: Literal["file", "directory", "other"]
    """``other`` stands for links, devices, pipes and sockets, which cannot be transferred."""
    size: _Size = 0
    """Bytes."""
    mtime_ns: _Time = 0
    """Time of the last change of its content: nanoseconds since 1970, UTC."""
    mode: _Mode = 0
    """Permission bits."""
    tag: _Id = ""
    """Identifies the version of the file: it differs between two versions."""
    mtime_rest: int = 0
    """Nanoseconds to add to ``mtime_ns``, for a time beyond ``FARTHEST_TIME``."""


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """Entry that a walk or a listing has left out."""

    path: _Text
    reason: _Text


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


class ListDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """List a directory in order of names, a page at a time. Answered by ``DirectoryPage``."""

    path: _Text = ""
    after: _Text = ""
    """The page begins after this name."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1000


class Stat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stat"):
    """Describe one file or directory. Answered by ``Entry``, whose path is empty."""

    path: _Text = ""


class OfferFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offer"):
    """Offer files that the caller wants to send. The same entries are the same offer. Answered by ``OfferReply``."""

    entries: Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=MAX_OFFER)]


class WaitForDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="await"):
    """Wait until an offer of the caller is no longer ``waiting``, or the time is over. Answered by ``OfferReply``."""

    offer: _Id
    seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT)] = 0.0


class ListOffers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offers"):
    """List all offers; only the identity itself may. Answered by ``OfferList``."""


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="contents"):
    """List the entries of an offer in order of paths, a page at a time; only the identity itself may.

    Answered by ``OfferPage``.
    """

    offer: _Id
    after: _Text = ""
    """The page begins after this path."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1000


class DecideOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="decide"):
    """Accept or reject an offer; only the identity itself may. Answered by ``OfferReply``."""

    offer: _Id
    accept: bool
    force: bool = False
    """The files replace others of the same names."""
    hidden: bool = False
    """Flagged entries (see ``_shared.name_risks``) are accepted too: all of them if ``names`` is empty."""
    names: Annotated[list[_Text], msgspec.Meta(max_length=MAX_ACCEPTED)] = []
    """Flagged paths that are accepted, with everything below them."""


Request: TypeAlias = ListDirectory | Stat | OfferFiles | WaitForDecision | ListOffers | Contents | DecideOffer


class DirectoryPage(msgspec.Struct, frozen=True):
    """Page of a directory."""

    entries: list[Entry]
    more: bool
    """Another page follows, after the name of the last entry."""
    unnamed: int = 0
    """On the first page: entries of the directory whose names cannot be sent, or that cannot be examined."""
    skipped: list[Skipped] = []
    """The first ``MAX_NAMED`` of those, with printable names."""


class OfferReply(msgspec.Struct, frozen=True):
    """Id and state of an offer."""

    offer: _Id
    state: OfferState


class OfferSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Offer without its entries; stored on disk in this form too."""

    id: _Id
    peer: str
    """ID52 of the sender."""
    name: str | None
    """The sender's petname at the time of the offer."""
    state: OfferState
    files: int
    bytes: int
    created: int
    """Seconds since 1970, UTC."""
    examples: list[str]
    """Some of its paths: flagged ones first, then the first names at its top level."""
    force: bool = False
    flagged: int = 0
    """Number of files and directories that must be accepted by name."""
    hidden: bool = False
    """True if all flagged entries are accepted."""
    names: list[str] = []
    """Flagged paths that are accepted, with everything below them."""
    failed: int = 0
    """Files that were not accepted when the offer was sent the last time."""
    decided: int = 0
    """Time of the last change of its state: seconds since 1970, UTC."""
    kept: int = 0
    """Bytes of its list of entries on disk."""
    paths: str = ""
    """Hash of its paths: equal for two offers of the same paths."""


class OfferList(msgspec.Struct, frozen=True):
    """Offers in an inbox."""

    offers: list[OfferSummary]


class OfferedEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """File or directory of an offer, as its receiver sees it."""

    path: str
    kind: Literal["file", "directory", "other"]
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    risks: list[Risk] = []
    accepted: bool = False
    """The entry is flagged, and was accepted by name."""


class OfferPage(msgspec.Struct, frozen=True):
    """Page of an offer."""

    entries: list[OfferedEntry]
    more: bool


# ── openings of a session ────────────────────────────────────────────────────────────────────────


class WalkDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="walk"):
    """The opener receives everything below a directory, or one file, as ``WalkEntries``; directories after content."""

    path: _Text = ""


class DownloadFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fetch"):
    """The opener receives files, one after the other."""


class UploadOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="send"):
    """The opener sends the files of an accepted offer, one after the other."""

    offer: _Id


SessionRequest: TypeAlias = WalkDirectory | DownloadFiles | UploadOffer


# ── messages inside a session ────────────────────────────────────────────────────────────────────


class FileRequest(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Receiver to sender: send this file next."""

    path: _Text
    offset: _Size
    """Bytes that the receiver has already."""
    digest: _Digest
    """Digest of those bytes."""


class FileReceived(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Receiver to sender: this file has arrived, complete and checked."""

    path: _Text


class FileDeclined(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Receiver to sender: this file is not wanted; may be sent while its content is on its way."""

    path: _Text
    kind: _Id
    message: _Text


class FileHeader(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Sender to receiver: content follows, then ``FileEnd`` or ``FileFailed``."""

    size: _Size
    mtime_ns: _Time
    mode: _Mode
    tag: _Id
    offset: _Size
    """Offset at which the content begins: the requested one, or 0 if the receiver's bytes are no prefix of the file."""
    mtime_rest: int = 0
    """Nanoseconds to add to ``mtime_ns``, for a time beyond ``FARTHEST_TIME``."""


class FileEnd(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Sender to receiver: the content is complete."""

    digest: _Digest
    """Digest of the whole file."""


class FileFailed(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Sender to receiver, instead of ``FileHeader`` or ``FileEnd``: the file cannot be sent."""

    kind: _Id
    message: _Text


class WalkEntries(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Some entries that a walk has found."""

    entries: Annotated[list[Entry], msgspec.Meta(max_length=MAX_BATCH)]
    skipped: Annotated[list[Skipped], msgspec.Meta(max_length=MAX_BATCH)]


TransferMessage: TypeAlias = FileRequest | FileReceived | FileDeclined | FileHeader | FileEnd | FileFailed | WalkEntries
