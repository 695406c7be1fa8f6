"""States of a sandbox, as ``status`` shows them."""

from __future__ import annotations

from typing import Final

CLOSED: Final = "closed"
"""State of a process whose sandbox holds."""
OPEN: Final = "open: "
"""Beginning of the state of a process that is not confined, or not in everything. The missing parts follow."""
SWITCHED_OFF: Final = "off"
"""State of a process in a daemon without sandboxes: ``limits.sandbox``."""
