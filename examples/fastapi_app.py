"""A FastAPI application that peers reach without a port of this machine.

    python examples/fastapi_app.py alice

``alice`` is an online identity of the daemon on this machine. Peers in her address book open the application:

    fastn-p2p open PEER guestbook --browser

It needs ``pip install fastapi 'fastn-p2p-client[http]'``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, FastAPI, Header, Request, WebSocket
from fastapi.responses import StreamingResponse

from fastn_p2p_client.http import serve_asgi
from fastn_p2p_client.protocol import Peer

entries: list[str] = []


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    entries.append("The guestbook is open.")
    yield


app = FastAPI(title="Guestbook", lifespan=lifespan)


@app.get("/")
async def read() -> list[str]:
    """Return all entries."""
    return entries


@app.post("/", status_code=201)
async def write(text: Annotated[str, Body()], request: Request) -> str:
    """Add an entry in the name of the caller, whom the daemon has verified."""
    caller: Peer = request.scope["fastn_p2p.peer"]
    entries.append(f"{caller}: {text}")
    return entries[-1]


@app.get("/me")
async def me(
    fastn_peer: Annotated[str, Header()], fastn_peer_name: Annotated[str | None, Header()] = None
) -> list[str]:
    """Return what the headers say of the caller, as a service behind `fastn-p2p expose` gets them."""
    return [fastn_peer, fastn_peer_name or ""]


@app.get("/events")
async def events() -> StreamingResponse:
    """Return the entries as server-sent events."""

    async def lines() -> AsyncIterator[str]:
        for entry in entries:
            yield f"data: {entry}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.websocket("/talk")
async def talk(socket: WebSocket) -> None:
    """Answer each text with the caller's name and the text."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{socket.scope['fastn_p2p.peer']}: {text}")


if __name__ == "__main__":
    serve_asgi(app, sys.argv[1], "guestbook")
