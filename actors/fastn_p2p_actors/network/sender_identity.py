"""Limits of an identity's process at the network process: it acts as its own identity and as no other."""

from __future__ import annotations

import logging
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from fastn_p2p_client.errors import Forbidden
from fastn_p2p_client.ipc.messages import (
    Call,
    OpenSession,
    RegisterBinding,
    RegisterIdentity,
    ReportWaiting,
    RequestSleep,
    UnregisterBinding,
    UnregisterIdentity,
    WaitForPeer,
)

_ACTING = (Call, OpenSession, WaitForPeer)
_NAMING = (
    *_ACTING,
    RegisterIdentity,
    RegisterBinding,
    UnregisterBinding,
    UnregisterIdentity,
    ReportWaiting,
    RequestSleep,
)

M = TypeVar("M", bound=msgspec.Struct)

log = logging.getLogger(__name__)


class SenderIdentity:
    """Checks messages of identities' processes."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str, str]] = set()

    def checked(self, identity: str, message: M) -> M:
        """Return the message, in which an identity that was left open is the sender's.

        Args:
            identity: name of the identity whose process has sent it.
            message: the message.

        Raises:
            Forbidden: the message names another identity. The log has each case once.
        """
        if not isinstance(message, _NAMING):
            return message
        named = message.identity
        if not named and isinstance(message, _ACTING):
            return replace(message, identity=identity)
        if named != identity:
            kind = type(message).__name__
            case = (identity, named or "", kind)
            if case not in self._logged and len(self._logged) < _MOST_LOGGED:
                self._logged.add(case)
                log.warning("code of %s was refused: %s as %r", identity, kind, named)
            raise Forbidden(role=f"a protocol of {identity}", request=f"to act as {named!r}")
        return message


_MOST_LOGGED = 1000
"""Cases that are remembered as logged."""
