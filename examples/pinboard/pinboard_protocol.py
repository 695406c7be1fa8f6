"""Pinboard: peers pin notes, list and unpin them, and follow new notes.

The notes are in a SQLite database in the workspace of the binding. So an identity can have several boards
(``--instance``), and a board is deleted when its binding is removed.
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
from fastn_p2p_client.protocol import Peer, Permissions, Protocol, request, stream

__all__ = ["Board", "Follow", "List", "Note", "Pin", "Pinboard", "Pinned", "Unpin", "Unpinned"]


class Note(msgspec.Struct, frozen=True):
    """Note on the board."""

    number: int
    text: str
    author: str
    """Petname of the author, or the ID52."""
    pinned: float
    """Unix time in seconds."""


class Pin(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Request: pin a note. The reply is ``Pinned``."""

    text: Annotated[str, msgspec.Meta(min_length=1)]


class List(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Request: list the notes, oldest first. The reply is ``Board``."""


class Unpin(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Request: remove a note of the caller. The reply is ``Unpinned``."""

    number: int


class Pinned(msgspec.Struct, frozen=True, tag=True):
    """Reply: the number of the new note."""

    number: int


class Board(msgspec.Struct, frozen=True, tag=True):
    """Reply: all notes."""

    notes: list[Note]


class Unpinned(msgspec.Struct, frozen=True, tag=True):
    """Reply: the note was removed."""


class Follow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Initial data of a stream."""

    after: int = 0
    """Send only notes with higher numbers."""


class Pinboard(Protocol):
    """A pinboard: peers pin notes, list and unpin them, and follow new notes.

    A stream sends one note as JSON per line, and new notes as they are pinned, until the follower ends its direction. A
    follower that ends it at once gets the current notes.

    Raises:
        ApplicationError: ``NoteTooLong`` (``{"length", "max_length"}``), ``NoSuchNote``, ``NotYours`` (``{"number"}``).
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        max_notes: Annotated[int, msgspec.Meta(ge=1, le=100_000, description="notes on the board")] = 1000
        max_length: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="characters of a note")] = 500
        export: Annotated[str | None, msgspec.Meta(description="directory for the notes of a removed board")] = None

    config: Config

    # ── hooks ────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def permissions(cls, config: Config) -> Permissions:
        return Permissions(write=[] if config.export is None else [config.export])

    async def on_check(self) -> None:
        """Check what the types cannot express."""
        if self.config.export is not None and not Path(self.config.export).expanduser().is_dir():
            raise ValueError(f"{self.config.export} is not a directory - at `$.export`")

    async def on_create(self) -> None:
        """Create the database."""
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS notes ("
                "number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, author TEXT, key BLOB, pinned REAL)"
            )
        database.close()

    async def on_activate(self) -> None:
        """Open the database."""
        self._database = self._open()
        self._news = asyncio.Condition()
        self._trim()

    async def on_reload(self) -> None:
        """Apply a changed config: delete the oldest notes above the limit."""
        self._trim()

    async def on_deactivate(self) -> None:
        """Close the database. All requests and streams have ended."""
        self._database.close()

    async def on_delete(self) -> None:
        """Export the notes, if the config says so. The workspace is deleted next."""
        if self.config.export is not None:
            context = self.context
            file = Path(self.config.export).expanduser() / f"{context.identity}-{context.instance}.json"
            self._database = self._open()
            file.write_bytes(msgspec.json.format(msgspec.json.encode(self._notes(0))))
            self._database.close()

    # ── requests and streams ─────────────────────────────────────────────────────────────────────

    @request
    async def answer(self, request: Pin | List | Unpin, peer: Peer) -> Pinned | Board | Unpinned:
        """Answer a request of a peer."""
        match request:
            case Pin(text):
                number = self._pin(text, peer)
                await self._notify()
                return Pinned(number)
            case List():
                return Board(self._notes(0))
            case Unpin(number):
                self._unpin(number, peer)
                return Unpinned()

    @stream
    async def follow(self, session: Session, initial: Follow | None) -> None:
        """Send notes to a follower."""
        last = initial.after if initial is not None else 0
        end = asyncio.create_task(self._wait_for_end(session))
        try:
            while True:
                for note in self._notes(last):
                    await session.write(msgspec.json.encode(note) + b"\n")
                    last = note.number
                if end.done():
                    return
                news = asyncio.create_task(self._wait_for_note_after(last))
                await asyncio.wait((news, end), return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
        finally:
            end.cancel()

    async def _wait_for_note_after(self, number: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._newest() > number)

    @staticmethod
    async def _wait_for_end(session: Session) -> None:
        """Wait until the follower has ended its direction, or the session has ended."""
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
            raise ApplicationError("NoSuchNote", f"there is no note {number}", {"number": number})
        if found[0][0] != bytes(peer.key):
            raise ApplicationError("NotYours", f"note {number} was pinned by another peer", {"number": number})
        self._database.execute("DELETE FROM notes WHERE number = ?", (number,))

    def _trim(self) -> None:
        self._database.execute(
            "DELETE FROM notes WHERE number NOT IN (SELECT number FROM notes ORDER BY number DESC LIMIT ?)",
            (self.config.max_notes,),
        )

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()
