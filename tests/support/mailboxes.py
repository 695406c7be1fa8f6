"""Mailboxes of tests: what they received, and servers that answer from a process of their own."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from fastn_p2p_actors.runtime.mailbox import Mailbox, Sender
from fastn_p2p_client.ipc.messages import Ack, GetStatus, encode
from fastn_p2p_client.ipc.request_channel import RequestChannel

__all__ = ["ECHO_SERVER", "POOR_SERVER", "MessageRecorder", "assert_answers", "connect"]

ECHO_SERVER = """
import asyncio, sys
from pathlib import Path
from fastn_p2p_actors.runtime.connection_limits import ConnectionLimits
from fastn_p2p_actors.runtime.mailbox import Mailbox
async def main():
    box = Mailbox(Path(sys.argv[1]), lambda sender, id, header, payload: box.send(sender, id, header, payload))
    box.open()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
"""Program that sends back each message. Its socket is its first argument."""

POOR_SERVER = """
import logging, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
logging.basicConfig(level=logging.WARNING)
""" + ECHO_SERVER.replace("asyncio.run(", "__import__('uvloop').run(").replace(
    "payload))", "payload), limits=ConnectionLimits(999, 999))"
)


class MessageRecorder:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[Sender, bytes, bytes, bytes]] = asyncio.Queue()
        self.gone: asyncio.Queue[Sender] = asyncio.Queue()

    def on_message(self, sender: Sender, correlation: bytes, header: bytes, payload: bytes) -> None:
        self.messages.put_nowait((sender, correlation, header, payload))

    async def next(self) -> tuple[Sender, bytes, bytes, bytes]:
        async with asyncio.timeout(50):
            return await self.messages.get()


def connect(path: Path) -> socket.socket:
    """Connect without any ZeroMQ library."""
    stranger = socket.socket(socket.AF_UNIX)
    stranger.settimeout(60)
    stranger.connect(str(path))
    return stranger


async def assert_answers(box: Mailbox, seen: MessageRecorder, link: RequestChannel) -> None:
    """Send a request over ``link`` and answer it."""
    asked = asyncio.ensure_future(link.request(GetStatus(), timeout=60))
    sender, correlation, _, _ = await seen.next()
    assert box.send(sender, correlation, encode(Ack()))
    assert (await asked).header == encode(Ack())
