"""Actors that stand in for the real ones: what each does is said by a word in a file, or in its name.

``<home>/orders/<name>`` is read at each start. No file: it is ready at once and stops when told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

from fastn_p2p_actors.runtime import control_channel as wire
from fastn_p2p_actors.runtime.actor import ActorContext
from fastn_p2p_client.errors import P2PError


async def serve(stage: ActorContext) -> None:
    """Does what the file says."""
    orders = stage.home.path / "orders" / stage.name
    order = orders.read_text() if orders.exists() else ""
    note(stage, "started")
    if order == "crash":
        raise ValueError("as ordered")
    if order == "never ready":
        await stage.stop_requested.wait()
        return
    stage.ready()
    if order == "stuck":
        while True:  # no signal handler of Python's, no event loop, only the kernel ends this
            time.monotonic()
    if order == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await asyncio.Event().wait()
    if order == "babble":
        leash(stage).send(b"\x93\x01what is this")
    if order == "huge":
        leash(stage).send(bytes(wire.MAX_MESSAGE + 1))
    if order == "let go":
        asyncio.get_running_loop().remove_reader(leash(stage).fileno())
        leash(stage).close()
    if order == "flood":
        while True:
            await asyncio.sleep(0)
            stage._beat()
    if order.startswith("ask "):
        await ask(stage, order)
    await stage.stop_requested.wait()
    note(stage, "stopped")


async def ask(stage: ActorContext, order: str) -> None:
    """Asks the supervisor, and writes the answer to the file ``answer-<name>``."""
    _, what, *names = order.split()
    requests: dict[str, wire.Request] = {
        "start": wire.StartIdentity(names[0] if names else ""),
        "stop": wire.StopIdentity(names[0] if names else ""),
        "ensure": wire.EnsureOnline(tuple(names)),
        "tree": wire.GetProcesses(),
    }
    try:
        reply: object = await stage.ask_supervisor(requests[what], 20)
    except P2PError as error:
        reply = error
    note(stage, f"answer {reply}")


def note(stage: ActorContext, what: str) -> None:
    """Adds a line to the file in which the tests follow what happens."""
    line = f"{time.monotonic_ns()} {os.getpid()} {stage.name} {what}\n"
    with Path(stage.home.path / "diary").open("a") as diary:
        diary.write(line)


def leash(stage: ActorContext) -> socket.socket:
    assert stage._leash is not None
    return stage._leash
