"""First messages between a program and the gateway, and the type of every control request."""

from __future__ import annotations

from typing import Protocol, TypeVar

from .base import Message, Record

__all__ = ["Hello", "RequestFor", "WaitingItem", "Welcome"]

ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class RequestFor(Protocol[ReplyT_co]):
    """A control request that is answered by a ``ReplyT_co``. For type checkers: every control request is one."""

    @property
    def reply_type(self) -> type[ReplyT_co]: ...


class WaitingItem(Record, frozen=True):
    """Something that waits for the owner."""

    identity: str = ""
    """Name of the identity; empty for strangers who ask for access to this daemon."""
    protocol: str = ""
    """Protocol of the identity in which it waits, such as Mail."""
    count: int = 0


class Welcome(Message, frozen=True, tag=40):
    """Both sides use this version from now on. The network process listens at ``data_route`` (a path)."""

    version: int
    daemon: str
    """Version of the daemon's distribution."""
    data_route: str
    max_payload: int
    max_calls: int
    waiting: tuple[WaitingItem, ...] = ()
    """Things that wait for the owner, by identity and protocol; some of them, if they are many."""


class Hello(Message, frozen=True, tag=10):
    """First message on ``control.sock``. Without a common version the gateway replies ``version-mismatch``."""

    reply_type = Welcome
    version: int
    """Oldest version that the program speaks."""
    program: str = ""
    """Name of the program in ``status``, at most 64 characters."""
    newest: int = 0
    """Newest version that the program speaks; 0 if that is ``version``."""
