"""Ports for servers that are processes of their own: nobody else gets them between the choice and the start."""

from __future__ import annotations

import random
import socket
from typing import Final

__all__ = ["free_port"]

_PORTS: Final = range(10_000, 16_000)
"""Below those that a kernel gives to programs that ask for any, and to connections."""
_RANDOM: Final = random.SystemRandom()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on. Chance chooses it, so other tests choose others."""
    while True:
        port = _RANDOM.choice(_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
