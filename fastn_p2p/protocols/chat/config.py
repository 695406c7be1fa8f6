"""The config of ``Chat``: how much a binding keeps."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
"""Seconds between two attempts to reach a peer: the first, and the longest."""

_MIB: Final = 1024 * 1024
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class ChatConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of what is over, the oldest messages go; what waits to be delivered never does."""

    history: _Count = 10_000
    """Messages that are kept of all conversations with one peer."""
    history_bytes: Annotated[int, msgspec.Meta(ge=_MIB // 16, le=1024 * _MIB)] = 8 * _MIB
    """Bytes of their texts."""
    max_msgs: Annotated[_Count, msgspec.Meta(description="messages kept of one conversation, the latest")] = 10_000
    """Messages that are kept of one conversation."""
    waiting: _Count = 1_000
    """One's own messages that may wait for one peer; one more is refused."""
    peers: _Count = 500
    """Peers of whom messages are kept; those of one more are refused."""
