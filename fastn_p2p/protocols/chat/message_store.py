"""The messages of a binding, in one SQLite file. What a method returns about is on disk when it returns."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.chat.messages import (
    MAX_BATCH,
    ChatMessage,
    ConversationSummary,
    MessageState,
    OutgoingMessage,
)
from fastn_p2p_client.errors import ApplicationError, StorageDamaged

from .config import ChatConfig

_VERSION: Final = 1
_MARKS: Final[tuple[MessageState, ...]] = ("kept", "delivered", "seen")
_KEPT, _DELIVERED, _SEEN = range(3)
_BATCH_BYTES: Final = 256 * 1024
"""Of the texts in one delivery."""

_SCHEMA: Final = """
CREATE TABLE peers (
    peer TEXT PRIMARY KEY,
    messages INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    peer TEXT NOT NULL,
    conversation TEXT NOT NULL,
    id TEXT NOT NULL,
    mine INTEGER NOT NULL,
    text TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    at INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    untold INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX by_id ON messages (peer, mine, id);
CREATE INDEX by_conversation ON messages (peer, conversation, seq);
CREATE INDEX waiting ON messages (peer, seq) WHERE mine = 1 AND mark = 0;
CREATE INDEX unseen ON messages (peer, conversation, seq) WHERE mine = 0 AND mark = 1;
CREATE INDEX untold ON messages (peer, conversation, seq) WHERE untold = 1;
"""
_LINE: Final = "seq, id, mine, text, at, mark"


class DeliveryBatch(NamedTuple):
    """What a peer is to be brought next: messages, or the ids of its own that were shown here."""

    conversation: str
    messages: list[OutgoingMessage]
    shown: list[str]


class MessageStore:
    """Used by one thread at a time.

    Raises (each method):
        sqlite3.Error: the disk is full, or the file damaged.
    """

    def __init__(self, path: Path, settings: ChatConfig) -> None:
        self.settings = settings
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._one("PRAGMA user_version")
            if version == 0:
                with self._db:
                    self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_VERSION};COMMIT;")
            elif version != _VERSION:
                raise StorageDamaged(path=str(path), reason=f"its version is {version}, this is for {_VERSION}")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def add_sent(self, peer: str, conversation: str, id: str, text: str, now: int) -> tuple[ChatMessage, bool]:
        """A message of one's own; whether it is new.

        Raises:
            ApplicationError: ``TooManyWaiting``, ``TooManyPeers``.
        """
        with self._transaction():
            found = self._lines("WHERE peer = ? AND mine = 1 AND id = ?", (peer, id))
            if found:
                return found[0], False
            waiting = self._one("SELECT count(*) FROM messages WHERE peer = ? AND mine = 1 AND mark = 0", peer)
            if waiting >= self.settings.waiting:
                raise ApplicationError(
                    "TooManyWaiting",
                    f"{waiting} messages wait for this peer already; no more until some are delivered",
                    {"limit": self.settings.waiting},
                )
            self._admit(peer)
            line = self._insert(peer, conversation, OutgoingMessage(id, text, now), mine=True, now=now)
            self._prune(peer, conversation)
            return line, True

    def add_received(
        self, peer: str, conversation: str, messages: Iterable[OutgoingMessage], now: int
    ) -> list[ChatMessage]:
        """Messages of a peer; those that are new.

        Raises:
            ApplicationError: ``TooManyPeers``.
        """
        kept: list[ChatMessage] = []
        with self._transaction():
            self._admit(peer)
            for each in messages:
                if not self._one("SELECT count(*) FROM messages WHERE peer = ? AND mine = 0 AND id = ?", peer, each.id):
                    kept += [self._insert(peer, conversation, each, mine=False, now=now)]
            self._prune(peer, conversation)
        return kept

    def delivered(self, peer: str, ids: Iterable[str]) -> list[str]:
        """The peer has these messages; those of which that is news."""
        known = list(ids)
        news = self._mark("peer = ? AND mine = 1 AND mark < ?", peer, known, _DELIVERED)
        with self._transaction():  # what waited could not go
            for conversation in self._conversations(peer, known):
                self._prune(peer, conversation)
        return news

    def mark_read_by_peer(self, peer: str, conversation: str, ids: Iterable[str]) -> list[str]:
        """The peer has been shown these messages; those of which that is news."""
        return self._mark("peer = ? AND mine = 1 AND mark < ? AND conversation = ?", peer, ids, _SEEN, conversation)

    def mark_read_here(self, peer: str, conversation: str, seq: int) -> bool:
        """The peer's messages up to ``seq`` have been shown; whether there is anything to tell the peer."""
        with self._transaction():
            return (
                self._db.execute(
                    "UPDATE messages SET mark = ?, untold = 1"
                    " WHERE peer = ? AND conversation = ? AND seq <= ? AND mine = 0 AND mark = 1",
                    (_SEEN, peer, conversation, seq),
                ).rowcount
                > 0
            )

    def receipts_sent(self, peer: str, ids: Iterable[str]) -> None:
        """The peer knows that these messages of its were shown."""
        with self._transaction():
            self._db.executemany(
                "UPDATE messages SET untold = 0 WHERE peer = ? AND mine = 0 AND id = ?", [(peer, id) for id in ids]
            )

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def recall(self, peer: str, conversation: str, before: int | None, limit: int) -> list[ChatMessage]:
        """The last messages, or the last ones before one of them; oldest first."""
        end = (1 << 62) if before is None else before
        lines = self._lines(
            "WHERE peer = ? AND conversation = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
            (peer, conversation, end, limit),
        )
        return lines[::-1]

    def conversations(self) -> list[ConversationSummary]:
        """All of them, the latest first."""
        rows = self._db.execute(
            "SELECT peer, conversation, count(*), sum(mine = 0 AND mark = 1), sum(mine = 1 AND mark = 0), max(at)"
            " FROM messages GROUP BY peer, conversation ORDER BY max(seq) DESC LIMIT 10000"
        )
        return [ConversationSummary(*row) for row in rows]

    def peers_with_work(self) -> list[str]:
        """Those that something is to be brought to."""
        rows = self._db.execute(
            "SELECT peer FROM messages WHERE mine = 1 AND mark = 0 UNION SELECT peer FROM messages WHERE untold = 1"
        )
        return [peer for (peer,) in rows]

    def work(self, peer: str) -> DeliveryBatch | None:
        """What is to be brought to a peer next, all of one conversation and in order; None when there is nothing."""
        rows = self._db.execute(
            "SELECT conversation, id, text, at, bytes FROM messages"
            " WHERE peer = ? AND mine = 1 AND mark = 0 ORDER BY seq LIMIT ?",
            (peer, MAX_BATCH),
        ).fetchall()
        if rows:
            conversation, size = rows[0][0], 0
            messages: list[OutgoingMessage] = []
            for name, id, text, at, taken in rows:
                size += taken
                if name != conversation or (messages and size > _BATCH_BYTES):
                    break
                messages.append(OutgoingMessage(id, text, at))
            return DeliveryBatch(conversation, messages, [])
        untold = self._db.execute(
            "SELECT conversation, id FROM messages WHERE peer = ? AND untold = 1 ORDER BY conversation, seq LIMIT ?",
            (peer, MAX_BATCH),
        ).fetchall()
        if not untold:
            return None
        return DeliveryBatch(untold[0][0], [], [id for name, id in untold if name == untold[0][0]])

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db  # as a context manager it commits, or rolls back

    def _one(self, query: str, *parameters: object) -> int:
        return int(self._db.execute(query, parameters).fetchone()[0])

    def _lines(self, where: str, parameters: tuple[object, ...]) -> list[ChatMessage]:
        rows = self._db.execute(f"SELECT {_LINE} FROM messages {where}", parameters)  # noqa: S608 - ours
        return [ChatMessage(seq, id, bool(mine), text, at, _MARKS[mark]) for seq, id, mine, text, at, mark in rows]

    def _admit(self, peer: str) -> None:
        if self._one("SELECT count(*) FROM peers WHERE peer = ?", peer):
            return
        if self._one("SELECT count(*) FROM peers") >= self.settings.peers:
            raise ApplicationError(
                "TooManyPeers", "no more conversations are kept here", {"limit": self.settings.peers}
            )
        self._db.execute("INSERT INTO peers (peer) VALUES (?)", (peer,))

    def _insert(self, peer: str, conversation: str, sent: OutgoingMessage, *, mine: bool, now: int) -> ChatMessage:
        size, at, mark = len(sent.text.encode()), min(sent.at, now), _KEPT if mine else _DELIVERED
        cursor = self._db.execute(
            "INSERT INTO messages (peer, conversation, id, mine, text, bytes, at, mark)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (peer, conversation, sent.id, mine, sent.text, size, at, mark),
        )
        self._db.execute("UPDATE peers SET messages = messages + 1, bytes = bytes + ? WHERE peer = ?", (size, peer))
        return ChatMessage(int(cursor.lastrowid or 0), sent.id, mine, sent.text, at, _MARKS[mark])

    def prune_all(self) -> None:
        """Forget what is too much by the limits of today."""
        with self._transaction():
            for peer, conversation in self._db.execute("SELECT DISTINCT peer, conversation FROM messages").fetchall():
                self._prune(peer, conversation)

    def _conversations(self, peer: str, ids: Iterable[str]) -> set[str]:
        query = "SELECT conversation FROM messages WHERE peer = ? AND mine = 1 AND id = ?"
        return {name for id in ids for (name,) in self._db.execute(query, (peer, id))}

    def _prune(self, peer: str, conversation: str) -> None:
        """Forget the oldest of what is too much: of this conversation, and of all with the peer."""
        count, size = self._db.execute("SELECT messages, bytes FROM peers WHERE peer = ?", (peer,)).fetchone()
        most = self.settings.max_msgs
        if count > most:
            query = "SELECT count(*) FROM messages WHERE peer = ? AND conversation = ?"
            excess = self._one(query, peer, conversation) - most
            if excess > 0:
                count, size = self._forget(peer, "AND conversation = ? ", (conversation,), count, size, count - excess)
        if not self._fits(count, size):
            self._forget(peer, "", (), count, size, None)

    def _forget(
        self, peer: str, which: str, parameters: tuple[str, ...], count: int, size: int, until: int | None
    ) -> tuple[int, int]:
        """Delete the oldest messages, none that waits, until so many are left, or until what is left fits."""
        gone: list[tuple[int]] = []
        for seq, taken in self._db.execute(
            f"SELECT seq, bytes FROM messages WHERE peer = ? {which}"  # noqa: S608 - ours
            "AND NOT (mine = 1 AND mark = 0) ORDER BY seq",
            (peer, *parameters),
        ):
            gone.append((seq,))
            count, size = count - 1, size - taken
            if self._fits(count, size) if until is None else count <= until:
                break
        self._db.executemany("DELETE FROM messages WHERE seq = ?", gone)
        self._db.execute("UPDATE peers SET messages = ?, bytes = ? WHERE peer = ?", (count, size, peer))
        return count, size

    def _fits(self, count: int, size: int) -> bool:
        return count <= self.settings.history and size <= self.settings.history_bytes

    def _mark(self, where: str, peer: str, ids: Iterable[str], mark: int, *more: object) -> list[str]:
        with self._transaction():
            return [
                id
                for id in ids
                if self._db.execute(
                    f"UPDATE messages SET mark = ? WHERE {where} AND id = ?",  # noqa: S608 - ours
                    (mark, peer, mark, *more, id),
                ).rowcount
            ]


def holdings(path: Path) -> tuple[int, int, int]:
    """Return how many messages the file keeps, of conversations with how many peers, and how many of them wait to be
    delivered. Blocks, and changes nothing. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA query_only = TRUE")
        messages, waiting = db.execute(
            "SELECT count(*), coalesce(sum(mine = 1 AND mark = 0), 0) FROM messages"
        ).fetchone()
        (peers,) = db.execute("SELECT count(*) FROM peers").fetchone()
    return messages, peers, waiting
