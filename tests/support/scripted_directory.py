"""Directory in the test's process. It keeps what is published, and answers otherwise where a test wants that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastn_p2p_actors.credentials.pkarr import decode_key, sequence_of

__all__ = ["Request", "ScriptedDirectory", "answer_with", "running_directory"]

Answer = Callable[[asyncio.StreamWriter], object]


def answer_with(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer of one piece."""
    lines = [f"HTTP/1.1 {status} x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines.append(f"Content-Length: {len(body)}")
    return lambda writer: writer.write("\r\n".join([*lines, "", ""]).encode() + body)


class Request:
    """Request that the directory has received. Names of headers are in lower case."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body


class ScriptedDirectory:
    """A directory.

    Attributes:
        packets: body of the packet of each key.
        script: answers to the next requests, in place of the usual ones.
        always: answer to each request without a script; None for the usual one.
        requests: all that were received.
        connections: number of connections that were opened.
        most_open: number of connections that were open at the same time.
    """

    def __init__(self) -> None:
        self.packets: dict[bytes, bytes] = {}
        self.script: list[Answer] = []
        self.always: Answer | None = None
        self.requests: list[Request] = []
        self.connections = 0
        self.most_open = 0
        self.arrived = asyncio.Event()
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    async def received(self, number: int, method: str = "") -> list[Request]:
        """Wait until so many requests have arrived."""
        async with asyncio.timeout(50):
            while len(found := [each for each in self.requests if method in ("", each.method)]) < number:
                self.arrived.clear()
                await self.arrived.wait()
        return found

    def disconnect(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self.most_open = max(self.most_open, len(self._writers))
        try:
            while line := (await reader.readline()).decode():
                method, path, _ = line.split()
                headers = {}
                while line := (await reader.readline()).decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, path, headers, body)
                self.requests.append(request)
                self.arrived.set()
                answer = self.script.pop(0) if self.script else self.always or self._usual(request)
                answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _usual(self, request: Request) -> Answer:
        key = decode_key(request.path.rpartition("/")[2])
        present = self.packets.get(key)
        if request.method == "GET":
            return answer_with(404) if present is None else answer_with(200, present)
        if present is not None and sequence_of(present) > sequence_of(request.body):
            return answer_with(409)
        self.packets[key] = request.body
        return answer_with(204)


@asynccontextmanager
async def running_directory(port: int = 0) -> AsyncIterator[ScriptedDirectory]:
    """A directory on loopback, by default on a free port."""
    directory = ScriptedDirectory()
    server = await asyncio.start_server(directory.serve, "127.0.0.1", port)
    directory.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/pkarr"
    try:
        yield directory
    finally:
        server.close()
        directory.disconnect()
