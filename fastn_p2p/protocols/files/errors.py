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
``NotAccepted``    hidden, executable and odd names are taken only when the receiver accepts them by name
``NotOwner``       only the identity itself may decide about its inbox
``Stopped``        whoever received it gave up; it has said why
=================  ======================================================================
"""

from __future__ import annotations

import errno
from typing import Final, Literal, TypeAlias

from fastn_p2p_client.errors import ApplicationError

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
    "NotAccepted",
    "NotOwner",
    "Stopped",
]

_FULL: Final = {
    errno.ENOSPC: "there is no space left",
    errno.EDQUOT: "there is no space left within the disk quota",
    errno.EFBIG: "there is no space left in a file of this file system, or within the limit of the process",
}
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


def read_error(error: OSError, path: str, at: str | None = None) -> FileError:
    """Return the failure to open or read something at the source.

    Args:
        path: what was to be read.
        at: which directory on the way there has caused it; empty for the one that is shared, None for the file itself.
    """
    if isinstance(error, FileNotFoundError) and at != "":
        return FileError("NotFound", "there is nothing under this name", path)
    if error.errno in _NO_DIRECTORY:
        return FileError("NotADirectory", f"{_named(at)} is a file or a link, not a directory", path)
    if at is None or at == path:
        return FileError("Unreadable", f"it cannot be read: {_reason(error)}", path)
    return FileError("Unreadable", f"{_named(at)} cannot be opened: {_reason(error)}", path)


def write_error(error: OSError, path: str, at: str | None = None) -> FileError:
    """Return the failure to make or write something at the destination.

    Args:
        path: what was to be written.
        at: which directory on the way there has caused it; empty for the destination itself, None for the file itself.
    """
    if error.errno in _FULL:
        return FileError("DiskFull", f"{_FULL[error.errno]}; what has arrived is kept", path)
    if error.errno in _NO_DIRECTORY:
        return FileError("NotADirectory", f"{_named(at)} is a file or a link here, not a directory", path)
    if at is None:
        return FileError("Unwritable", f"it cannot be written: {_reason(error)}", path)
    return FileError("Unwritable", f"{_named(at)} cannot be {'made or ' if at else ''}opened: {_reason(error)}", path)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _named(directory: str | None) -> str:
    if directory is None:
        return "a part of the path"
    return f"the directory {directory!r}" if directory else "the directory that holds everything"
