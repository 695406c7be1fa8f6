"""Attachments as files. Their names are a stranger's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from fastn_p2p_client.mail.messages import Attachment

from .._shared.name_risks import risks_of
from .._shared.path_names import check_component
from ..files.errors import FileError

__all__ = ["save_attachments"]


def save_attachments(attachments: Sequence[Attachment], directory: Path, *, hidden: bool = False) -> list[Path]:
    """Writes each under its name into an existing directory, complete or not at all; returns where they are.

    Args:
        hidden: save also names that are hidden, executable or odd (see ``files.risks``).

    Raises:
        FileError: ``UnsafeName``, ``NotAccepted``: none was written.
        FileExistsError: one of the names is taken; those that were written are gone again. Nothing is overwritten.
        OSError: likewise, it cannot be written.
    """
    names = [check_component(attachment.name) for attachment in attachments]
    for name in names:
        risks = risks_of(name)
        if risks and not hidden:
            raise FileError("NotAccepted", f"the name {name!r} is {' and '.join(risks)}")
    written: list[Path] = []
    try:
        for name, attachment in zip(names, attachments, strict=True):
            path = directory / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(attachment.content)
    except OSError:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return written
