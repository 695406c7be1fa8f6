"""Pinboard: peers pin notes, list and unpin them, and follow what others pin.

The notes lie in a SQLite database in the binding's workspace, so each identity can have several boards (``--alias``),
and a board is gone when its binding is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fastn_p2p_client import ApplicationError, P2PError, Session
from fastn_p2p_client.protocol import Peer, Protocol, request, stream

__all__ = ["Board", "Follow", "List", "Note", "Pin", "Pinboard", "Pinned", "Unpin", "Unpinned"]


class Note(msgspec.Struct, frozen=True):
    number: int
    text: str
    author: str
    """The petname of whoever has pinned it, or the ID52."""
    pinned: float
    """Unix time."""


class Pin(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Puts a note on the board. Answered by ``Pinned``."""

    text: Annotated[str, msgspec.Meta(min_length=1)]


class List(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Answered by ``Board``: what hangs there, oldest first."""


class Unpin(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Takes a note of one's own from the board. Answered by ``Unpinned``."""

    number: int


class Pinned(msgspec.Struct, frozen=True, tag=True):
    number: int


class Board(msgspec.Struct, frozen=True, tag=True):
    notes: list[Note]


class Unpinned(msgspec.Struct, frozen=True, tag=True):
    pass


class Follow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The initial data of a stream."""

    after: int = 0
    """Notes with higher numbers are sent."""


class Pinboard(Protocol):
    """A pinboard: peers pin notes, list and unpin them, and follow what others pin.

    A stream sends one note as JSON in each line, as soon as it is pinned, until the follower ends its own direction.
    One that does so at once gets what hangs there.

    Raises:
        ApplicationError: ``NoteTooLong`` (``{"length", "max_length"}``), ``NoSuchNote``, ``NotYours`` (``{"number"}``).
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        max_notes: Annotated[int, msgspec.Meta(ge=1, le=100_000, description="notes on the board")] = 1000
        max_length: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="characters of a note")] = 500
        export: Annotated[str | None, msgspec.Meta(description="directory for the notes of a removed board")] = None

    config: Config

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    async def on_check(self) -> None:
        """What the types cannot say."""
        if self.config.export is not None and not Path(self.config.export).expanduser().is_dir():
            raise ValueError(f"{self.config.export} is not a directory - at `$.export`")

    async def on_create(self) -> None:
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS notes ("
                "number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, author TEXT, key BLOB, pinned REAL)"
            )
        database.close()

    async def on_activate(self) -> None:
        self._database = self._open()
        self._news = asyncio.Condition()
        self._trim()

    async def on_reload(self) -> None:
        """A smaller board loses its oldest notes."""
        self._trim()

    async def on_deactivate(self) -> None:
        """All requests and streams have ended."""
        self._database.close()

    async def on_delete(self) -> None:
        """The last chance to keep something: the workspace goes next."""
        if self.config.export is not None:
            context = self.context
            file = Path(self.config.export).expanduser() / f"{context.identity}-{context.instance}.json"
            self._database = self._open()
            file.write_bytes(msgspec.json.format(msgspec.json.encode(self._notes(0))))
            self._database.close()

    # ── what peers ask for ───────────────────────────────────────────────────────────────────────

    @request
    async def answer(self, request: Pin | List | Unpin, peer: Peer) -> Pinned | Board | Unpinned:
        match request:
            case Pin(text):
                number = self._pin(text, peer)
                await self._tell()
                return Pinned(number)
            case List():
                return Board(self._notes(0))
            case Unpin(number):
                self._unpin(number, peer)
                return Unpinned()

    @stream
    async def follow(self, session: Session, initial: Follow | None) -> None:
        last = initial.after if initial is not None else 0
        leaving = asyncio.create_task(self._left(session))
        try:
            while True:
                for note in self._notes(last):
                    await session.write(msgspec.json.encode(note) + b"\n")
                    last = note.number
                if leaving.done():
                    return
                news = asyncio.create_task(self._pinned_after(last))
                await asyncio.wait((news, leaving), return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            leaving.cancel()

    async def _pinned_after(self, number: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._newest() > number)

    @staticmethod
    async def _left(session: Session) -> None:
        """Until the follower has enough, or has gone."""
        with contextlib.suppress(P2PError):
            while await session.read():
                pass

    # ── the database ─────────────────────────────────────────────────────────────────────────────

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.context.workspace / "notes.db", isolation_level=None)

    def _select(self, query: str, *values: Any) -> list[Any]:
        return self._database.execute(query, values).fetchall()

    def _notes(self, after: int) -> list[Note]:
        rows = self._select("SELECT number, text, author, pinned FROM notes WHERE number > ? ORDER BY number", after)
        return [Note(*row) for row in rows]

    def _newest(self) -> int:
        return int(self._select("SELECT coalesce(max(number), 0) FROM notes")[0][0])

    def _pin(self, text: str, peer: Peer) -> int:
        length, longest = len(text), self.config.max_length
        if length > longest:
            data = {"length": length, "max_length": longest}
            raise ApplicationError("NoteTooLong", f"the note has {length} characters, {longest} are allowed", data)
        values = (text, str(peer), bytes(peer.key), time.time())
        self._database.execute("INSERT INTO notes (text, author, key, pinned) VALUES (?, ?, ?, ?)", values)
        self._trim()
        return self._newest()

    def _unpin(self, number: int, peer: Peer) -> None:
        found = self._select("SELECT key FROM notes WHERE number = ?", number)
        if not found:
            raise ApplicationError("NoSuchNote", f"no note {number} hangs here", {"number": number})
        if found[0][0] != bytes(peer.key):
            raise ApplicationError("NotYours", f"note {number} is somebody else's", {"number": number})
        self._database.execute("DELETE FROM notes WHERE number = ?", (number,))

    def _trim(self) -> None:
        self._database.execute(
            "DELETE FROM notes WHERE number NOT IN (SELECT number FROM notes ORDER BY number DESC LIMIT ?)",
            (self.config.max_notes,),
        )

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
