"""Paths that become rules of a sandbox, without those that code in another sandbox could have replaced by a link.

A rule is for the file to which a path leads. Code that may write to a directory could put a link there which leads to a
key file, and would have it after the next start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fastn_p2p_client.permissions import Permissions


def without_replaceable(permissions: Permissions, own: Iterable[Path]) -> Permissions:
    """Return the permissions without paths that are below a path that may be written, or below ``own``.

    They need no rule of their own, because that of the directory holds for them.
    """
    writable = frozenset(os.path.realpath(each) for each in (*permissions.write, *own))

    def kept(paths: Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
        return [path for path in paths if writable.isdisjoint(map(os.path.realpath, Path(path).parents))]

    return replace(
        permissions,
        read=kept(permissions.read),
        write=kept(permissions.write),
        programs=kept(permissions.programs),
    )
