"""Config of ``Chat``: limits of what a binding stores."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 60.0
"""Seconds between two attempts to reach a peer: the first pause, and the longest."""

_MIB: Final = 1024 * 1024
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class ChatConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits. The oldest messages above a limit are deleted, but never one that waits for delivery."""

    store: Annotated[
        str,
        msgspec.Meta(
            description="URL of a PostgreSQL database that keeps the messages: postgresql://USER@HOST:5432/DB"
        ),
    ] = ""
    """PostgreSQL database that keeps the messages: ``postgresql://USER@HOST:5432/DATABASE``. Messages that are here
    move there. Empty: an SQLite file keeps them."""
    history: _Count = 10_000
    """Messages in all conversations with one peer."""
    history_bytes: Annotated[int, msgspec.Meta(ge=_MIB // 16, le=1024 * _MIB)] = 8 * _MIB
    """Bytes of their texts."""
    max_msgs: Annotated[_Count, msgspec.Meta(description="messages kept of one conversation, the latest")] = 10_000
    """Messages in one conversation."""
    waiting: _Count = 1_000
    """Own messages that wait for one peer. Further ones are rejected."""
    peers: _Count = 500
    """Peers with stored messages. Messages of further peers are rejected."""
