"""What can go wrong with a file, at either side.

=================  ======================================================================
``NotShared``      the peer shares no files, or takes none
``NotFound``       there is nothing under this name
``NotAFile``       a link, device, pipe or socket: only files and directories are transferred
``NotADirectory``  a part of the path is a file or a link
``UnsafeName``     a name that could do harm, see ``names``
``Collision``      two names of one transfer differ only by case or by how Unicode spells them
``Exists``         another file has the name already
``Changed``        the file changed while it was read, or since it was offered
``Corrupt``        what arrived is not what the other side has read
``Unreadable``     the file cannot be read
``Unwritable``     the file cannot be written
``DiskFull``       there is no space left for it; what has arrived is kept
``Busy``           another transfer is writing the same file
``TooLarge``       more bytes than the receiving side takes
``TooMany``        more files, offers or sessions than the other side takes
``OfferUnknown``   the offer is not known there, or not any more
``OfferWaits``     nobody has accepted the offer yet
``OfferRejected``  its receiver does not want it
``NotOwner``       only the identity itself may decide about its inbox
``Stopped``        whoever received it gave up; it has said why
=================  ======================================================================
"""

from __future__ import annotations

import errno
from typing import Final, Literal, TypeAlias

from fastn_p2p_client.errors import ApplicationError

__all__ = ["FileError", "Kind", "reading_failed", "writing_failed"]

Kind: TypeAlias = Literal[
    "NotShared",
    "NotFound",
    "NotAFile",
    "NotADirectory",
    "UnsafeName",
    "Collision",
    "Exists",
    "Changed",
    "Corrupt",
    "Unreadable",
    "Unwritable",
    "DiskFull",
    "Busy",
    "TooLarge",
    "TooMany",
    "OfferUnknown",
    "OfferWaits",
    "OfferRejected",
    "NotOwner",
    "Stopped",
]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_DIRECTORY: Final = (errno.ENOTDIR, errno.ELOOP)


class FileError(ApplicationError):
    """One file, or one offer, that cannot be transferred.

    Attributes:
        kind: one of ``Kind``, or what a peer of another version calls it.
        message: words for people.
        path: which file, relative to what is shared; empty when it is not about one.
    """

    def __init__(self, kind: Kind | str, message: str, path: str = "") -> None:
        super().__init__(kind, message, {"path": path} if path else None)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    @classmethod
    def of(cls, error: ApplicationError) -> FileError:
        """The same, as it has come from the other side."""
        path = error.payload.get("path", "") if isinstance(error.payload, dict) else ""
        return cls(error.kind, error.message, path if isinstance(path, str) else "")


def reading_failed(error: OSError, path: str) -> FileError:
    """What it means that something at the source could not be opened or read."""
    if isinstance(error, FileNotFoundError):
        return FileError("NotFound", "there is nothing under this name", path)
    if error.errno in _NO_DIRECTORY:
        return FileError("NotADirectory", "a part of the path is a file or a link, not a directory", path)
    return FileError("Unreadable", f"it cannot be read: {error.strerror or error}", path)


def writing_failed(error: OSError, path: str) -> FileError:
    """What it means that something at the destination could not be made or written."""
    if error.errno in _FULL:
        return FileError("DiskFull", "there is no space left; what has arrived is kept", path)
    if error.errno in _NO_DIRECTORY:
        return FileError("NotADirectory", "a part of the path is a file or a link here, not a directory", path)
    return FileError("Unwritable", f"it cannot be written: {error.strerror or error}", path)
