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


async def serve(context: ActorContext) -> None:
    """Does what the file says."""
    orders = context.home.path / "orders" / context.name
    order = orders.read_text() if orders.exists() else ""
    note(context, "started")
    if order == "crash":
        raise ValueError("as ordered")
    if order == "never ready":
        await context.stop_requested.wait()
        return
    context.ready()
    if order == "stuck":
        while True:  # no signal handler of Python's, no event loop, only the kernel ends this
            time.monotonic()
    if order == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await asyncio.Event().wait()
    if order == "babble":
        channel(context).send(b"\x93\x01what is this")
    if order == "huge":
        channel(context).send(bytes(wire.MAX_MESSAGE + 1))
    if order == "let go":
        asyncio.get_running_loop().remove_reader(channel(context).fileno())
        channel(context).close()
    if order == "flood":
        while True:
            await asyncio.sleep(0)
            context._send_heartbeat()
    if order.startswith("ask "):
        await request_supervisor(context, order)
    await context.stop_requested.wait()
    note(context, "stopped")


async def request_supervisor(context: ActorContext, order: str) -> None:
    """Asks the supervisor, and writes the answer to the file ``answer-<name>``."""
    _, what, *names = order.split()
    requests: dict[str, wire.Request] = {
        "start": wire.StartIdentity(names[0] if names else ""),
        "stop": wire.StopIdentity(names[0] if names else ""),
        "ensure": wire.EnsureOnline(tuple(names)),
        "tree": wire.GetProcesses(),
    }
    try:
        reply: object = await context.request_from_supervisor(requests[what], 20)
    except P2PError as error:
        reply = error
    note(context, f"answer {reply}")


def note(context: ActorContext, what: str) -> None:
    """Adds a line to the file in which the tests follow what happens."""
    line = f"{time.monotonic_ns()} {os.getpid()} {context.name} {what}\n"
    with Path(context.home.path / "diary").open("a") as notes:
        notes.write(line)


def channel(context: ActorContext) -> socket.socket:
    assert context._channel is not None
    return context._channel
