"""Attacks with identities: any peer can make any number of keys, and delegate them to its own endpoints."""

from __future__ import annotations

import asyncio
from itertools import count

from tests.support.attackers import HELLO, Attacker
from tests.support.signer import Signer

__all__ = ["hellos", "made_up_identities"]

_BATCH = 32


async def made_up_identities(attacker: Attacker) -> None:
    """Introduce one made-up identity after the other, each once.

    Options:
        identities: number over each connection, which then stays open.
    """
    connection = await attacker.connect()
    channel = await attacker.greet(connection)
    for _ in range(0, attacker.options["identities"], _BATCH):
        await attacker.write(channel, b"".join(_introduction(attacker) for _ in range(_BATCH)))
        attacker.counts["identities"] += _BATCH
    await connection.closed()


def _introduction(attacker: Attacker) -> bytes:
    return attacker.introduction(Signer(f"made up {attacker.number} {next(_numbers)}"))


async def hellos(attacker: Attacker) -> None:
    """Connect, send a hello, and close the connection."""
    connection = await attacker.connect()
    channel = await attacker.greet(connection)
    attacker.counts["hellos"] += 1
    await channel.write_all(HELLO)
    await asyncio.sleep(0.05)  # time for the daemon to read it
    connection.close(0, b"enough")


_numbers = count()
