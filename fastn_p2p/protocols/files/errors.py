"""Errors of a transfer, at either side.

=================  ======================================================================
``NotShared``      the peer shares no files, or accepts none
``NotFound``       there is no file or directory with this name
``NotAFile``       a link, device, pipe or socket: only files and directories are transferred
``NotADirectory``  a component of the path is a file or a link
``UnsafeName``     the name could do harm, see ``_shared.path_names``
``Collision``      two names of one transfer differ only by case or by how Unicode spells them
``Exists``         another file has the name already
``Changed``        the file changed while it was read, or since it was offered
``Corrupt``        the received content is not the content that the sender has read
``Unreadable``     the file cannot be read
``Unwritable``     the file cannot be written
``DiskFull``       there is no space left for it; the received part is kept
``Busy``           another transfer is writing the same file
``TooLarge``       more bytes than the receiver accepts
``TooMany``        more files, offers or sessions than the peer accepts
``OfferUnknown``   the peer does not know the offer, or has forgotten it
``OfferWaits``     the offer is not accepted yet
``OfferRejected``  the receiver has rejected the offer
``NotAccepted``    the name is hidden, executable or odd, and the receiver has not accepted it by name
``NotOwner``       only the identity itself may decide about its inbox
``Stopped``        the receiver has cancelled the file
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
    """A file, or an offer, cannot be transferred.

    Attributes:
        kind: one of ``Kind``, or a kind that only a peer of another version knows.
        message: text for people.
        path: the file, relative to the shared directory; empty when the error is not about one file.
    """

    def __init__(self, kind: Kind | str, message: str, path: str = "") -> None:
        super().__init__(kind, message, {"path": path} if path else None)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    @classmethod
    def of(cls, error: ApplicationError) -> FileError:
        """Return the ``FileError`` that a peer has sent as an application error."""
        path = error.payload.get("path", "") if isinstance(error.payload, dict) else ""
        return cls(error.kind, error.message, path if isinstance(path, str) else "")


def read_error(error: OSError, path: str, at: str | None = None) -> FileError:
    """Return the error for a file or directory that cannot be opened or read.

    Args:
        path: the file or directory.
        at: the directory on the way to it that caused the error; empty for the shared one, None for the file itself.
    """
    if isinstance(error, FileNotFoundError) and at != "":
        return FileError("NotFound", "there is no file or directory with this name", path)
    if error.errno in _NO_DIRECTORY:
        return FileError("NotADirectory", f"{_named(at)} is a file or a link, not a directory", path)
    if at is None or at == path:
        return FileError("Unreadable", f"it cannot be read: {_reason(error)}", path)
    return FileError("Unreadable", f"{_named(at)} cannot be opened: {_reason(error)}", path)


def write_error(error: OSError, path: str, at: str | None = None) -> FileError:
    """Return the error for a file or directory that cannot be made or written.

    Args:
        path: the file or directory.
        at: the directory on the way to it that caused the error; empty for the destination, None for the file itself.
    """
    if error.errno in _FULL:
        return FileError("DiskFull", f"{_FULL[error.errno]}; the received part is kept", path)
    if error.errno in _NO_DIRECTORY:
        return FileError("NotADirectory", f"{_named(at)} is a file or a link here, not a directory", path)
    if at is None:
        return FileError("Unwritable", f"it cannot be written: {_reason(error)}", path)
    return FileError("Unwritable", f"{_named(at)} cannot be {'made or ' if at else ''}opened: {_reason(error)}", path)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _named(directory: str | None) -> str:
    if directory is None:
        return "a component of the path"
    return f"the directory {directory!r}" if directory else "the directory itself"
