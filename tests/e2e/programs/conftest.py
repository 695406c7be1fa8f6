"""The modules of this folder use the same two daemons."""

from __future__ import annotations

from tests.support.shared_daemons import shared_daemons

__all__ = ["shared_daemons"]
