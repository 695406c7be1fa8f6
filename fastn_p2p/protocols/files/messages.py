"""What the two sides of ``FileTransfer`` say to each other.

``Request`` lists the calls, ``SessionRequest`` what a session can be opened for, and ``TransferMessage`` what is said
inside a session, each in a frame of its own (see ``frames``).
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
"""Entries, and skipped things, in one message of a walk: some 2 MiB with the longest paths there can be."""
MAX_WAIT: Final = 30.0
"""Seconds that one ``WaitForDecision`` may take."""
FARTHEST_TIME: Final = 1 << 62
"""Nanoseconds before and after 1970 (until the year 2116) that ``mtime_ns`` can say; the rest is ``mtime_rest``."""
MAX_SIZE: Final = (1 << 63) - 1
"""Bytes of a file, and of all files together as far as they are counted."""
MAX_NAMED: Final = 100
"""Names in one listing, of things that cannot be transferred; the others are only counted."""
MAX_ACCEPTED: Final = 10_000
"""Names that one ``DecideOffer`` accepts."""

_Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]
_Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)]
_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""Nanoseconds since 1970, UTC. What is sent lies within ``FARTHEST_TIME`` of 1970: older daemons refuse more."""
_Mode: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=0o777)]
_Digest: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=DIGEST_SIZE, max_length=DIGEST_SIZE)]

OfferState: TypeAlias = Literal["waiting", "accepted", "rejected", "finished"]
"""Of an offer: nobody has decided; its files may come; they may not; all of them are there."""


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A file or directory."""

    path: _Text
    """Relative to what was asked for, with ``/``; empty for that itself."""
    kind: Literal["file", "directory", "other"]
    """``other`` is what cannot be transferred: links, devices, pipes, sockets."""
    size: _Size = 0
    """Bytes."""
    mtime_ns: _Time = 0
    """When its content last changed: nanoseconds since 1970, UTC."""
    mode: _Mode = 0
    """Permission bits."""
    tag: _Id = ""
    """Another tag, another version of the file."""
    mtime_rest: int = 0
    """Nanoseconds to be added to ``mtime_ns``, for a time that is farther away than ``FARTHEST_TIME``."""


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """What a walk has left out."""

    path: _Text
    reason: _Text


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


class ListDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """What is in a directory, in order of names, a page at a time. Answered by ``DirectoryPage``."""

    path: _Text = ""
    after: _Text = ""
    """The page begins after this name."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1000


class Stat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stat"):
    """One file or directory. Answered by ``Entry``, whose path is empty."""

    path: _Text = ""


class OfferFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offer"):
    """Files that whoever asks would send. The same files are the same offer. Answered by ``OfferReply``."""

    entries: Annotated[list[Entry], msgspec.Meta(min_length=1, max_length=MAX_OFFER)]


class WaitForDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="await"):
    """How an offer of one's own stands, once it is not ``waiting`` or the time is over. Answered by ``OfferReply``."""

    offer: _Id
    seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT)] = 0.0


class ListOffers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offers"):
    """All offers; only the identity itself may ask. Answered by ``OfferList``."""


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="contents"):
    """Everything in an offer, in order of paths, a page at a time; only the identity itself may ask.

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
    """Its files replace others of the same names."""
    hidden: bool = False
    """Also what is flagged (see ``risks``) is accepted;"""
    names: Annotated[list[_Text], msgspec.Meta(max_length=MAX_ACCEPTED)] = []
    """or of that only these paths, and what is below them."""


Request: TypeAlias = ListDirectory | Stat | OfferFiles | WaitForDecision | ListOffers | Contents | DecideOffer


class DirectoryPage(msgspec.Struct, frozen=True):
    entries: list[Entry]
    more: bool
    """Another page follows, after the name of the last entry."""
    unnamed: int = 0
    """On the first page: things in this directory whose names cannot be sent, or that cannot be looked at."""
    skipped: list[Skipped] = []
    """The first ``MAX_NAMED`` of them, with their names made visible."""


class OfferReply(msgspec.Struct, frozen=True):
    offer: _Id
    state: OfferState


class OfferSummary(msgspec.Struct, frozen=True, kw_only=True):
    id: _Id
    peer: str
    """ID52 of whoever offers."""
    name: str | None
    """Their petname at the time of the offer."""
    state: OfferState
    files: int
    bytes: int
    created: int
    """Seconds since 1970, UTC."""
    examples: list[str]
    """Some of its paths: flagged ones first, then the first names at its top."""
    force: bool = False
    flagged: int = 0
    """Files and directories that are taken only when they are accepted by name."""
    hidden: bool = False
    """All of those are accepted;"""
    names: list[str] = []
    """or these, and what is below them."""
    failed: int = 0
    """Files that were not taken when it was sent the last time."""
    decided: int = 0
    """When its state changed last, or a file of it came: seconds since 1970, UTC."""
    kept: int = 0
    """Bytes that its list takes here."""
    paths: str = ""
    """The same for two offers of the same paths."""


class OfferList(msgspec.Struct, frozen=True):
    offers: list[OfferSummary]


class OfferedEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file or directory of an offer, as its receiver sees it."""

    path: str
    kind: Literal["file", "directory", "other"]
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    risks: list[Risk] = []
    accepted: bool = False
    """It is flagged, and accepted by name."""


class OfferPage(msgspec.Struct, frozen=True):
    entries: list[OfferedEntry]
    more: bool


# ── what a session is opened for ─────────────────────────────────────────────────────────────────


class WalkDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="walk"):
    """Everything below a directory, or one file: comes as ``WalkEntries``, directories after what is in them."""

    path: _Text = ""


class DownloadFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fetch"):
    """The side that opened the session wants files, one after the other."""


class UploadOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="send"):
    """The side that serves wants the files of an accepted offer, one after the other."""

    offer: _Id


SessionRequest: TypeAlias = WalkDirectory | DownloadFiles | UploadOffer


# ── what is said inside a session ────────────────────────────────────────────────────────────────


class FileRequest(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """From the side that receives: this file next."""

    path: _Text
    offset: _Size
    """Bytes that it has already,"""
    digest: _Digest
    """and the digest of them."""


class FileReceived(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """From the side that receives: this file is there, complete and checked."""

    path: _Text


class FileDeclined(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """From the side that receives: this file is given up; also while its content is on its way."""

    path: _Text
    kind: _Id
    message: _Text


class FileHeader(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """From the side that sends: here it is; content follows, then ``FileEnd`` or ``FileFailed``."""

    size: _Size
    mtime_ns: _Time
    mode: _Mode
    tag: _Id
    offset: _Size
    """Where the content begins: what was asked for, or 0 when those bytes are not the beginning of this file."""
    mtime_rest: int = 0
    """As in ``Entry``."""


class FileEnd(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """From the side that sends: that was all of it."""

    digest: _Digest
    """Of the whole file."""


class FileFailed(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """From the side that sends: instead of ``FileHeader`` or ``FileEnd``."""

    kind: _Id
    message: _Text


class WalkEntries(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """A part of what a walk finds."""

    entries: Annotated[list[Entry], msgspec.Meta(max_length=MAX_BATCH)]
    skipped: Annotated[list[Skipped], msgspec.Meta(max_length=MAX_BATCH)]


TransferMessage: TypeAlias = FileRequest | FileReceived | FileDeclined | FileHeader | FileEnd | FileFailed | WalkEntries
