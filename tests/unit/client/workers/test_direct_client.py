"""Messages that are handled where they are read, and all else that nats-py reads, in any pieces."""

from __future__ import annotations

import asyncio
import random

from fastn_p2p_client.nats_client.direct_client import DirectClient
from fastn_p2p_client.workers.messages import Subjects, new_name
from tests.support.daemons import DEADLINE

INFO = b'INFO {"server_id":"x","version":"2.9.0","max_payload":1048576,"headers":true}\r\n'
NOBODY = b"NATS/1.0 503 No Responders\r\n\r\n"
STREAM = (
    b"MSG a.b 1 5\r\nhello\r\nMSG a.c 1 reply 0\r\n\r\nPONG\r\nMSG a.d 1 12\r\nMSG a 1 1\r\nx\r\n"
    + b"HMSG a.e 1 %d %d\r\n%s\r\n" % (len(NOBODY), len(NOBODY), NOBODY)
    + b"PING\r\nMSG a.f 1 4\r\n\r\n\r\n\r\nMSG a.g 7 1\r\nx\r\nMSG a.h 1 3\r\nend\r\n"
)
EXPECTED = [
    ("a.b", b"hello", False),
    ("a.c", b"", False),
    ("a.d", b"MSG a 1 1\r\nx", False),
    ("a.e", b"", True),
    ("a.f", b"\r\n\r\n", False),
    ("a.h", b"end", False),
]


async def test_messages_arrive_in_order_however_their_bytes_are_split() -> None:
    pieces = random.Random(7)
    for largest in (1, 3, 10, 40, 10_000):
        heard: list[tuple[str, bytes, bool]] = []
        complete = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, largest: int = largest) -> None:
            writer.write(INFO)
            while (line := await reader.readline()) and not line.startswith(b"SUB"):
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
            rest = STREAM
            while rest:
                size = pieces.randint(1, largest)
                writer.write(rest[:size])
                await writer.drain()
                await asyncio.sleep(0)
                rest = rest[size:]
            await reader.read()
            writer.close()

        def hear(
            subject: str,
            data: bytes,
            is_unreachable: bool,
            heard: list[tuple[str, bytes, bool]] = heard,
            complete: asyncio.Event = complete,
        ) -> None:
            heard.append((subject, data, is_unreachable))
            if subject == "a.h":
                complete.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = DirectClient(needs_tls=False)
        port = server.sockets[0].getsockname()[1]
        await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        await client.subscribe_directly("a.>", hear)
        await asyncio.wait_for(complete.wait(), DEADLINE)
        assert heard == EXPECTED
        await client.close()
        server.close()


def test_subjects_have_the_names_of_the_binding() -> None:
    subjects, name = Subjects.of("bob", "Work", "gpu"), new_name()
    assert subjects.worker(name) == f"fastn-p2p.bob.Work.gpu.worker.{name}"
    assert subjects.bridge(name, name) == f"fastn-p2p.bob.Work.gpu.bridge.{name}.{name}"
