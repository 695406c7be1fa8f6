"""Joined identity: an identity whose key is at another daemon, as it is on disk and in memory."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, P2PError
from fastn_p2p_client.ipc.messages import ReplicaInfo
from fastn_p2p_client.keys import PublicKey, id52_of

from ...credentials.owner_statement import peek_owner_statement
from ..serving.binding_homes import BindingHome

_AWAY_SECONDS: Final = 60
"""Seconds without an answer after which the owner's daemon counts as away."""


class SavedJoined(msgspec.Struct, kw_only=True):
    """A joined identity, as it is in the file."""

    name: str
    identity: bytes
    owner: str
    """Name of the owner's daemon."""
    lineage: bytes
    """Lineage of the transport keys of the owner's daemon."""
    delegation: bytes = b""
    since: int = 0
    until: int = 0
    """Unix times at which the delegation begins and ends."""
    record: bytes = b""
    packet: bytes = b""
    is_removed: bool = False
    """True if the owner has removed this replica."""
    seen: int = 0
    """Unix time of the owner's last answer; 0 for none."""
    homes: tuple[BindingHome, ...] | None = None
    """Homes of its bindings; None if the owner's daemon chooses none."""
    statement: bytes = b""
    """Highest signed ``OwnerStatement`` so far, which was verified; empty if the first owner's daemon still is it."""

    @property
    def rank(self) -> tuple[int, bytes]:
        """Order of what is known about the owner's daemon: a statement with a higher one replaces it."""
        return peek_owner_statement(self.statement).rank if self.statement else (0, b"")


class JoinedIdentity:
    """A joined identity in memory.

    Attributes:
        saved: what the file has of it.
        problem: reason for which the owner's daemon has not answered; empty if it has.
        is_due: set when the next report is due.
        endpoint: endpoint of the owner's daemon at the last report; empty before the first one.
        checked: boot time at the begin of the last report that has ended, with or without an answer; else None.
        granted: done when the owner's daemon has answered the next time.
        has_new_owner: True until another owner's daemon than before has renewed the delegation.
    """

    __slots__ = ("checked", "endpoint", "granted", "has_new_owner", "is_due", "problem", "saved", "task")

    def __init__(self, saved: SavedJoined) -> None:
        self.saved = saved
        self.problem = ""
        self.endpoint = b""
        self.checked: float | None = None
        self.has_new_owner = False
        self.is_due = asyncio.Event()
        self.granted = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def id52(self) -> str:
        return id52_of(self.saved.identity)

    @property
    def key(self) -> PublicKey:
        return PublicKey(self.saved.identity)

    def info(self, now: float) -> ReplicaInfo:
        """Return it for ``status``."""
        saved = self.saved
        is_away = bool(self.problem) or now - saved.seen > _AWAY_SECONDS
        state = "removed" if saved.is_removed else "new" if not saved.seen else "away" if is_away else "online"
        return ReplicaInfo(
            identity=saved.name,
            name=saved.owner,
            endpoint="",
            state=state,
            joined=True,
            seen=saved.seen,
            until=saved.until,
            problem=self.problem,
            homes=[each.binding for each in saved.homes or () if not each.daemon],
        )

    def warning(self, now: float) -> str:
        """Return what is wrong, in words; empty if nothing is."""
        name, owner, left = self.saved.name, self.saved.owner, self.saved.until - now
        if self.saved.is_removed:
            return (
                f"{name} is no replica any more: {owner} has removed this daemon. Remove it here, too: "
                f"fastn-p2p replica leave {name}"
            )
        if left <= 0:
            return (
                f"{name} is not served here: its delegation has ended, and {owner} does not renew it: "
                f"{self.problem or 'it has not answered yet'}"
            )
        if self.problem:
            return f"{name} is served here for {int(left / 60)} more minutes: {owner} does not answer: {self.problem}"
        return ""


class Renewal:
    """``OutgoingCall`` whose outcome is the payload of the reply, or an error."""

    may_repeat = False

    def __init__(self, target: bytes) -> None:
        self.target = target
        self.outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.outcome.add_done_callback(lambda done: done.cancelled() or done.exception())

    def on_reply(self, payload: bytes) -> None:
        if not self.outcome.done():
            self.outcome.set_result(payload)

    def on_application_error(self, kind: str, message: str, payload: bytes) -> None:
        self.on_error(BadMessage(reason="an application error in reply to a replica's report"))

    def on_error(self, error: P2PError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
